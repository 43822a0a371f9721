"""The metadata of a model file: JSON that describes the model, parsed as untrusted data."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from stonecli.errors import ModelError, reason
from stonecli.key import Key

METADATA_KEY = "stone"
FORMAT_VERSION = 1
MAX_DESCRIPTION = 64 << 10  # characters
MAX_TEXT = 4000  # characters of the license and similar fields
MAX_WINDOW_SECONDS = 600.0
MAX_EXPONENT = 10.0


@dataclass(frozen=True)
class ModelInfo:
    """The description of a model.

    Attributes:
        train_type: ``"ks"``: the classes are 12 key signatures; ``"ks_mode"``: 24 keys.
        classes: the keys of each class in output order: one for ``ks_mode``; for ``ks`` the major key and its relative
            minor.
        corrects_tuning: whether the audio must be resampled to A = 440 Hz.
        frames_averaged: number of VQT frames that are averaged to one.
        sample_rate: sample rate of the input in Hz.
        window_seconds: duration of the training windows in seconds.
        minimum_samples: minimum length of the input, context included.
        context_samples: context on either side of a window: the edges of the transform fall there and are dropped.
        circle_type: 1 or 7, the circle of the training loss; None if unknown.
        temperature: softmax temperature.
        rejection_threshold: minimum of the largest mean probability, 0..1; below, a recording has no key.
        posterior_exponent, exponent_per_doubling: exponent of the pooled posterior, see ``stonecli.detection.pooling``.
        major_prior_odds: prior odds of major against minor; 1 if equally likely.
        licence: license of the weights.
        trained_on: the training data, in one line.
        checkpoint_sha256: SHA-256 of the checkpoint that the model was exported from.
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
    rejection_threshold: float
    posterior_exponent: float
    exponent_per_doubling: float
    major_prior_odds: float
    licence: str
    trained_on: str
    checkpoint_sha256: str

    @property
    def window_samples(self) -> int:
        """Samples in a window, without context."""
        return max(round(self.window_seconds * self.sample_rate), self.min_window_samples)

    @property
    def min_window_samples(self) -> int:
        """Samples in the shortest window, without context."""
        return self.minimum_samples - 2 * self.context_samples


def parse_info(text: str) -> ModelInfo:
    """The description in ``text``, a JSON object.

    The names in the file are those of format 1, and four of them differ from the attributes.

    Raises:
        ModelError: the description is damaged, has an unsupported version, or has a value out of range.
    """
    if len(text) > MAX_DESCRIPTION:
        raise ModelError("the model metadata is damaged: too long")
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
        version = values["format_version"]
        if version != FORMAT_VERSION:
            raise ModelError(f"unsupported model format {repr(version)[:40]}; update stone")
        info = ModelInfo(
            train_type=values["train_type"],
            classes=tuple(tuple(Key.parse(key) for key in name.split("/")) for name in values["classes"]),
            corrects_tuning=_typed(values, "corrects_tuning", bool),
            frames_averaged=int(values["frames_averaged"]),
            sample_rate=int(values["sample_rate"]),
            window_seconds=_finite(values["window_seconds"]),
            minimum_samples=int(values["minimum_samples"]),
            # optional: added after format 1 was first released
            context_samples=int(values.get("context_samples", 0)),
            rejection_threshold=_finite(values.get("least_confidence", 0.0)),
            posterior_exponent=_finite(values.get("sharpness", 1.0)),
            exponent_per_doubling=_finite(values.get("sharpness_per_doubling", 0.0)),
            major_prior_odds=_finite(values.get("major_odds", 1.0)),
            # required
            circle_type=values["circle_type"],
            temperature=_finite(values["temperature"]),
            licence=_typed(values, "licence", str)[:MAX_TEXT],
            trained_on=_typed(values, "trained_on", str)[:MAX_TEXT],
            checkpoint_sha256=_typed(values, "checkpoint_sha256", str)[:MAX_TEXT],
        )
    except ModelError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ModelError(f"the model metadata is damaged: {reason(error)}") from error
    _check(info)
    return info


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):  # such as 1e999
        raise ValueError(f"{number} is not a finite number")
    return number


def _typed(values: Any, name: str, kind: type) -> Any:
    value = values[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is not of type {kind.__name__}")
    return value


def _check(info: ModelInfo) -> None:
    keys = [key for keys_of in info.classes for key in keys_of]
    per_class = 2 if info.train_type == "ks" else 1 if info.train_type == "ks_mode" else 0
    if any(len(keys_of) != per_class for keys_of in info.classes) or sorted(key.index for key in keys) != [*range(24)]:
        raise ModelError("the model's classes are not the 12 key signatures or the 24 keys")
    if per_class == 2 and any(major.relative != minor for major, minor in info.classes):
        raise ModelError("the model's classes are not a major key and its relative minor")
    if not 8000 <= info.sample_rate <= 48000 or not 0 < info.window_seconds <= MAX_WINDOW_SECONDS:
        raise ModelError(f"invalid window: {info.window_seconds} s at {info.sample_rate} Hz")
    if not 0.0 <= info.rejection_threshold < 1.0:
        raise ModelError(f"invalid rejection threshold: {info.rejection_threshold}")
    if not 0 < info.minimum_samples <= MAX_WINDOW_SECONDS * info.sample_rate:
        raise ModelError(f"invalid minimum length: {info.minimum_samples} samples")
    if not 0 <= 2 * info.context_samples < info.minimum_samples:
        raise ModelError(f"invalid context: {info.context_samples} samples of {info.minimum_samples}")
    if info.temperature <= 0:
        raise ModelError(f"invalid temperature: {info.temperature}")
    if not 0.01 <= info.major_prior_odds <= 100.0:
        raise ModelError(f"invalid prior odds of major: {info.major_prior_odds}")
    if not 0.0 < info.posterior_exponent <= MAX_EXPONENT or not 0.0 <= info.exponent_per_doubling <= MAX_EXPONENT:
        raise ModelError(f"invalid exponent: {info.posterior_exponent}, {info.exponent_per_doubling} per doubling")
    if info.circle_type not in (None, 1, 7) or isinstance(info.circle_type, bool | float):
        raise ModelError("invalid circle type: must be 1 or 7")
    if not 1 <= info.frames_averaged <= 1000:
        raise ModelError(f"invalid number of frames averaged: {info.frames_averaged}")
