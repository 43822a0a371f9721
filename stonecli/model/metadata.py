"""What a model says of itself: the JSON in its metadata, read as data that anybody may have written."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from stonecli.errors import ModelError
from stonecli.key import Key

METADATA_KEY = "stone"
FORMAT_VERSION = 1
MAX_DESCRIPTION = 64 << 10  # characters
MAX_TEXT = 4000  # characters, of a licence or the like
MAX_WINDOW_SECONDS = 600.0
MAX_SHARPNESS = 10.0


@dataclass(frozen=True)
class ModelInfo:
    """What a model says of itself.

    Attributes:
        train_type: ``"ks"``: classes are 12 key signatures; ``"ks_mode"``: 24 keys.
        classes: in output order, the keys that a class stands for: one for ``ks_mode``; for ``ks`` the major key and
            its relative minor.
        corrects_tuning: whether the audio is to be resampled so that A is 440 Hz.
        frames_averaged: VQT frames that the network sees as one.
        sample_rate: of the audio, in Hz.
        window_seconds: length of the windows that it was trained on.
        minimum_samples: shortest audio that it can be given, context included.
        context_samples: on either side of a window, what it is to be given besides: the edges of its transform lie
            there, and are dropped.
        circle_type: 1 or 7, the circle of its training loss; None where unknown.
        temperature: of its softmax.
        least_confidence: of a recording's mean probabilities, 0..1; below, it has no key.
        sharpness, sharpness_per_doubling: how sure a recording is, of which some of its windows say more than one
            does alone: ``stonecli.detection.pooling``.
        major_odds: of major against minor before anything was heard; 1 for as likely (the same).
        licence: of the weights.
        trained_on: what it was trained on, in one line.
        checkpoint_sha256: of the checkpoint that it was exported from.
    """

    train_type: Literal["ks", "ks_mode"]
    classes: tuple[tuple[Key, ...], ...]
    corrects_tuning: bool
    frames_averaged: int
    sample_rate: int
    window_seconds: float
    minimum_samples: int
    context_samples: int
    circle_type: int | None
    temperature: float
    least_confidence: float
    sharpness: float
    sharpness_per_doubling: float
    major_odds: float
    licence: str
    trained_on: str
    checkpoint_sha256: str

    @property
    def window_samples(self) -> int:
        """Samples in a window, without context."""
        return max(round(self.window_seconds * self.sample_rate), self.least_window)

    @property
    def least_window(self) -> int:
        """Samples in the shortest window, without context."""
        return self.minimum_samples - 2 * self.context_samples


def parse_info(text: str) -> ModelInfo:
    """The description in ``text``, a JSON object.

    Raises:
        ModelError: it is damaged, of another version, or makes no sense.
    """
    if len(text) > MAX_DESCRIPTION:
        raise ModelError("the model's description of itself is damaged: too long")
    try:
        values = json.loads(text, parse_constant=_no_number)
        version = values["format_version"]
        if version != FORMAT_VERSION:
            raise ModelError(f"model format {repr(version)[:40]} is not known to this version of stone")
        info = ModelInfo(
            train_type=values["train_type"],
            classes=tuple(tuple(Key.parse(key) for key in name.split("/")) for name in values["classes"]),
            corrects_tuning=_typed(values, "corrects_tuning", bool),
            frames_averaged=int(values["frames_averaged"]),
            sample_rate=int(values["sample_rate"]),
            window_seconds=_finite(values["window_seconds"]),
            minimum_samples=int(values["minimum_samples"]),
            context_samples=int(values.get("context_samples", 0)),  # of format 1, but not from the start, as is
            circle_type=values["circle_type"],
            temperature=_finite(values["temperature"]),
            least_confidence=_finite(values.get("least_confidence", 0.0)),  # this
            sharpness=_finite(values.get("sharpness", 1.0)),  # and these
            sharpness_per_doubling=_finite(values.get("sharpness_per_doubling", 0.0)),
            major_odds=_finite(values.get("major_odds", 1.0)),
            licence=_typed(values, "licence", str)[:MAX_TEXT],
            trained_on=_typed(values, "trained_on", str)[:MAX_TEXT],
            checkpoint_sha256=_typed(values, "checkpoint_sha256", str)[:MAX_TEXT],
        )
    except ModelError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"the model's description of itself is damaged: {reason}") from error
    _check(info)
    return info


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):  # 1e999 is
        raise ValueError(f"{number} is no number")
    return number


def _typed(values: Any, name: str, kind: type) -> Any:
    value = values[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is no {kind.__name__}")
    return value


def _check(info: ModelInfo) -> None:
    keys = [key for keys_of in info.classes for key in keys_of]
    per_class = 2 if info.train_type == "ks" else 1 if info.train_type == "ks_mode" else 0
    if any(len(keys_of) != per_class for keys_of in info.classes) or sorted(key.index for key in keys) != [*range(24)]:
        raise ModelError("the model's classes are not the 12 key signatures or the 24 keys")
    if per_class == 2 and any(major.relative != minor for major, minor in info.classes):
        raise ModelError("the model's classes are not a major key and its relative minor")
    if not 8000 <= info.sample_rate <= 48000 or not 0 < info.window_seconds <= MAX_WINDOW_SECONDS:
        raise ModelError(f"odd window: {info.window_seconds} s at {info.sample_rate} Hz")
    if not 0.0 <= info.least_confidence < 1.0:
        raise ModelError(f"odd least confidence: {info.least_confidence}")
    if not 0 < info.minimum_samples <= MAX_WINDOW_SECONDS * info.sample_rate:
        raise ModelError(f"odd minimum length: {info.minimum_samples} samples")
    if not 0 <= 2 * info.context_samples < info.minimum_samples:
        raise ModelError(f"odd context: {info.context_samples} samples of {info.minimum_samples}")
    if info.temperature <= 0:
        raise ModelError(f"odd temperature: {info.temperature}")
    if not 0.01 <= info.major_odds <= 100.0:
        raise ModelError(f"odd odds of major: {info.major_odds}")
    if not 0.0 < info.sharpness <= MAX_SHARPNESS or not 0.0 <= info.sharpness_per_doubling <= MAX_SHARPNESS:
        raise ModelError(f"odd sharpness: {info.sharpness} and {info.sharpness_per_doubling} for each doubling")
    if info.circle_type not in (None, 1, 7) or isinstance(info.circle_type, bool | float):
        raise ModelError("odd circle type: neither 1 nor 7")
    if not 1 <= info.frames_averaged <= 1000:
        raise ModelError(f"odd number of frames averaged: {info.frames_averaged}")
