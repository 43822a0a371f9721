"""Training configuration: TOML, or the original's gin, as frozen dataclasses that Pydantic checks.

A file has a table for each dataclass below; missing values have the defaults below. Unknown settings, wrong types and
values out of range are errors, which name the setting and what is allowed. Values are only data: TOML is parsed by
``tomllib``, a gin file by ``ast.literal_eval`` of its ``Name.param = literal`` lines. Nothing is executed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import reprlib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stonecli.errors import StoneError
from stonecli.util.small_text import read_small_text
from stonecli_train.chromanet import BINS_PER_OCTAVE, ChromaNetConfig
from stonecli_train.gin import parse_gin
from stonecli_train.old_names import with_current_names
from stonecli_train.vqt import VQTConfig

TrainType = Literal["ks", "ks_mode"]
LossName = Literal["stone", "semi_tone", "skey", "cross_entropy"]
CONFIGS = Path(__file__).parent / "configs"
MAX_WINDOW_SECONDS = 600.0

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class ConfigError(StoneError):
    """The configuration is invalid; the message names the setting and may suggest a fix."""


@dataclass(frozen=True, config=_STRICT)
class InputConfig:
    """The input of the network.

    Attributes:
        window_seconds: length of a segment in seconds.
        shortest_seconds: minimum length of a batch. Each batch is truncated to a random length from this up to
            ``window_seconds``, because the last windows of recordings vary in length; 0 for no truncation.
        frames_averaged: VQT frames averaged into one.
        corrects_tuning: whether tracks are resampled to A = 440 Hz.
    """

    window_seconds: Annotated[float, Field(gt=0, le=MAX_WINDOW_SECONDS)] = 15.0
    shortest_seconds: Weight = 0.0
    frames_averaged: Count = 1
    corrects_tuning: bool = False


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """The objective; see ``stonecli_train.losses``.

    Attributes:
        name: ``stone`` (12 classes), ``semi_tone``, ``skey`` or ``cross_entropy`` (24 classes; needs
            labels, and uses the loss of ``semi_tone`` for unlabeled tracks).
        circle: 7 for the circle of fifths, 1 for that of semitones.
        mode_weight: weight of Semi-TONE's mode loss.
        skey_weights: weights of S-KEY's three terms; its code multiplies them by 1, 1.5 and 20.
        skey_chroma: the chroma for S-KEY's pseudo-label of the mode: ``log`` levels, as published, the square ``root``
            of the magnitude, or the ``linear`` magnitude. Area under the ROC curve of the mode, given the signature, on
            264 recordings: 0.919, 0.927 and 0.909.
        skey_tonic: the two pitch classes that this pseudo-label compares: ``index``, as published, uses the index of
            the likeliest signature as a pitch class; ``scale`` finds both tonics by fitting a major scale to the batch.
        smoothing: for ``cross_entropy``: label smoothing, the probability of related keys in the proportions of the
            MIREX score.
        labeled_weight: weight of the loss of a labeled batch.
        unlabeled_weight: for ``cross_entropy``: weight of the loss of an unlabeled batch.
        unlabeled: for ``cross_entropy``: the target of unlabeled tracks. ``views`` compares views as ``semi_tone``
            does, ``mean_teacher`` uses the prediction of the run's own averaged weights for two segments, and
            ``pseudo_labels`` the predictions of other checkpoints, made before (``stonecli_train.pseudo_labels``).
        min_confidence: for ``mean_teacher`` and ``pseudo_labels``: segments with a lower confidence are skipped.
        chroma_agrees: for ``pseudo_labels``: whether to skip segments whose chroma is in the other mode
            (``stonecli_train.pseudo_labels.confirmed_by_chroma``).
        score_weight, style_weight: for ``cross_entropy``: weights of the auxiliary losses of renderings
            (``stonecli_train.auxiliary``); 0 for none.
    """

    name: LossName = "stone"
    circle: Literal[1, 7] = 7
    mode_weight: Weight = 1.5
    skey_weights: tuple[float, float, float] = (1.0, 1.7, 1.0)
    skey_chroma: Literal["log", "root", "linear"] = "log"
    skey_tonic: Literal["index", "scale"] = "index"
    smoothing: Share = 0.14
    labeled_weight: Weight = 1.0
    unlabeled_weight: Weight = 1.0
    unlabeled: Literal["views", "mean_teacher", "pseudo_labels"] = "views"
    min_confidence: Share = 0.5
    chroma_agrees: bool = False
    score_weight: Weight = 0.0
    style_weight: Weight = 0.0


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Batches.

    Attributes:
        batch_size: number of tracks in a batch, over all processes together.
        micro_batch: windows that the network processes at once (a track of a batch has one to three); 0 for as many as
            fit into memory. It changes memory and time, but gradients only by rounding.
        validation_share: share of the tracks that is used for validation.
        workers: number of processes that prefetch batches; 0 to make batches in the training process.
        augment: whether to augment the features, each segment separately: spectral tilt, attenuated bands, drum hits,
            noise. Labeled segments also get the timbre (not the pitches) of unlabeled tracks.
        balance_modes: whether major and minor tracks are drawn equally often (labeled batches only).
        unlabeled_every: with both kinds of tracks, one batch out of this number is unlabeled. An unlabeled batch has
            three views and costs as much as three labeled ones.
        no_key_share: share of tracks without a key in labeled batches, if there are any.
        tempo: with ``augment``, the maximum factor of time stretching, faster or slower, at the same pitch.
    """

    batch_size: Count = 128
    micro_batch: NotNegative = 0
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    workers: NotNegative = 1
    augment: bool = False
    balance_modes: bool = False
    unlabeled_every: Annotated[int, Field(ge=2)] = 2
    no_key_share: Share = 0.1
    tempo: Annotated[float, Field(ge=1, le=2)] = 1.0


@dataclass(frozen=True, config=_STRICT)
class OptimizerConfig:
    """AdamW and its schedules. The published values are in ``configs/ks.toml``, ``ks_mode.toml`` and ``skey.toml``.

    Attributes:
        epochs: maximum number of epochs.
        train_steps, val_steps: number of batches per epoch, and per validation.
        lr: learning rate after the warm-up.
        min_lr: learning rate at the end of the cosine schedule.
        warmup_epochs: length of the linear warm-up.
        cosine_epochs: epoch at which the cosine schedule of the learning rate ends; 0 for the last epoch.
        betas: coefficients of Adam's running averages.
        weight_decay, weight_decay_end: start and end of the cosine schedule of the weight decay, on kernels only.
        weight_decay_epochs: epoch at which that schedule ends; 0 for the last epoch.
        clip: maximum norm of the gradient.
        clip_per: which gradient is clipped: that of each ``parameter``, as published, or of the whole ``network``.
        ema: decay of the exponential moving average of the weights, which is validated and saved; 0 for none.
        patience: number of epochs without a better validation after which training stops; 0 for never.
        snapshot_epochs: interval in epochs at which a checkpoint is saved as ``epoch_NUMBER.pt``; 0 for never.
        seed: seed of all random numbers.
    """

    epochs: Count = 100
    train_steps: Count = 512
    val_steps: Count = 32
    lr: Positive = 1e-3
    min_lr: Weight = 5e-8
    warmup_epochs: Weight = 1.0
    cosine_epochs: Weight = 0.0
    betas: tuple[Share, Share] = (0.9, 0.98)
    weight_decay: Weight = 0.04
    weight_decay_end: Weight = 0.4
    weight_decay_epochs: Weight = 0.0
    clip: Positive = 3.0
    clip_per: Literal["parameter", "network"] = "network"
    ema: Share = 0.995
    patience: NotNegative = 0
    snapshot_epochs: NotNegative = 0
    seed: NotNegative = 0


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """All settings of a training run, except the paths of its data."""

    network: ChromaNetConfig = field(default_factory=ChromaNetConfig)
    vqt: VQTConfig = field(default_factory=VQTConfig)
    input: InputConfig = field(default_factory=InputConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def train_type(self) -> TrainType:
        """``ks`` for 12 key signatures, ``ks_mode`` for 24 keys."""
        return "ks" if self.network.rows == 1 else "ks_mode"

    @property
    def segment_frames(self) -> int:
        """VQT frames in a segment."""
        return self._frames(self.input.window_seconds)

    @property
    def shortest_frames(self) -> int:
        """Minimum number of VQT frames of a batch's segments."""
        return self._frames(self.input.shortest_seconds or self.input.window_seconds)

    @property
    def has_auxiliary(self) -> bool:
        """Whether there are auxiliary losses."""
        return self.loss.score_weight > 0 or self.loss.style_weight > 0

    def _frames(self, seconds: float) -> int:
        return int(seconds * self.vqt.sample_rate) // self.vqt.hop_length + 1

    def as_dict(self) -> dict[str, Any]:
        """The configuration as nested dictionaries, lists, numbers and strings, for checkpoints and JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @property
    def sha256(self) -> str:
        """SHA-256 of all values, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


def load_config(path: Path) -> TrainConfig:
    """The configuration in a .toml or .gin file.

    Raises:
        ConfigError: the file is invalid.
        OSError: the file cannot be read.
    """
    try:
        text = read_small_text(path)
        if path.suffix.lower() == ".gin":
            return config_from_gin(parse_gin(text.splitlines()))
        return config_from_dict(tomllib.loads(text))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: is not UTF-8; save it in that encoding") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def find_config(path: Path) -> Path:
    """``path`` if the file exists, else the built-in configuration of this name (``laptop_ks``)."""
    shipped = CONFIGS / f"{path}.toml"
    return shipped if path.name == str(path) and not path.exists() and shipped.exists() else path


def default_config(name: str) -> TrainConfig:
    """The built-in configuration ``name``: ``ks``, ``ks_mode`` or ``skey``."""
    return load_config(CONFIGS / f"{name}.toml")


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration of nested dictionaries; earlier names of settings are accepted.

    Raises:
        ConfigError: a setting is unknown, or its value is of the wrong type or out of range.
    """
    try:
        # As JSON, so that lists are valid for tuples although the types are strict.
        return _ADAPTER.validate_json(json.dumps(with_current_names(values)))
    except ValidationError as error:
        raise _config_error(error) from error
    except TypeError as error:  # a date, for example
        raise ConfigError(f"a value is neither a number, a string nor a list: {error}") from error


def override(config: TrainConfig, **changes: Any) -> TrainConfig:
    """``config`` with the given values of ``table__field`` replaced; None leaves a value unchanged.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    tables: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        if value is not None:
            table, _, key = name.partition("__")
            tables.setdefault(table, {})[key] = value
    try:
        return replace(config, **{table: replace(getattr(config, table), **new) for table, new in tables.items()})
    except ValidationError as error:
        raise _config_error(error) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def with_values(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """``config`` with values replaced by assignments like ``loss.mode_weight=2`` or ``network.kernels=[5, 5, 3]``.

    The part after ``=`` is a TOML value; a string needs no quotes.

    Raises:
        ConfigError: an assignment has another form, an unknown name, or a value of the wrong type.
    """
    values = config.as_dict()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        table, dot, key = name.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"{assignment!r} must be TABLE.NAME=VALUE, like loss.mode_weight=2")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        for current, settings in with_current_names({table: {key: value}}).items():
            values.setdefault(current, {}).update(settings)
    return config_from_dict(values)


_GIN_NAMES = {
    "HarmonicVQT.fmin": "vqt.fmin",
    "HarmonicVQT.n_bins": "vqt.n_bins",
    "HarmonicVQT.bins_per_octave": "vqt.bins_per_octave",
    "Stone.out_channels": "network.out_channels",
    "Stone.kernels": "network.kernels",
    "Stone.temperature": "network.temperature",
    "Stone.n_bins": "network.n_bins",
    "get_datasets.sr": "vqt.sample_rate",
    "get_datasets.duration": "input.window_seconds",
    "get_datasets.batch_size": "data.batch_size",
    "CrossPowerSpectralDensityLoss.weights": "loss.skey_weights",
    "get_learning_rate_scheduler.min_lr": "optimizer.min_lr",
    "get_learning_rate_scheduler.warmup_epochs": "optimizer.warmup_epochs",
    "get_learning_rate_scheduler.n_epochs_cosine": "optimizer.cosine_epochs",
    "get_weights_decay_scheduler.weight_decay": "optimizer.weight_decay",
    "get_weights_decay_scheduler.weight_decay_end": "optimizer.weight_decay_end",
    "get_weights_decay_scheduler.schedule_epochs": "optimizer.weight_decay_epochs",
    "get_optimizer.betas": "optimizer.betas",
    "clip_gradients.clip_grad": "optimizer.clip",
    "EarlyStoppingCallback.patience": "optimizer.patience",
}
_GIN_IGNORED = (
    "get_datasets.dataset_type_test",
    "get_datasets.test_percent",
    "get_datasets.step_percent",
    "get_datasets.buffer_size",
    "get_datasets.input_type",
)


def config_from_gin(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration from the gin parameters of the published code, ``Module.param`` -> literal.

    Missing values come from the matching published configuration: S-KEY if the transform is called ``VQT`` or the
    weights of its loss are given, Semi-TONE if ``dataset_type_train`` is given, and STONE otherwise.

    Raises:
        ConfigError: a parameter is unknown or unsupported, or its value is invalid.
    """
    short = {
        ".".join(name.split(".")[-2:]): name for name in values
    }  # src.stone24.stone.Stone.kernels -> Stone.kernels
    is_skey = "CrossPowerSpectralDensityLoss.weights" in short or any(name.startswith("VQT.") for name in short)
    is_semi_tone = "get_datasets.dataset_type_train" in short
    tables = default_config("skey" if is_skey else "ks_mode" if is_semi_tone else "ks").as_dict()
    for given, full_name in short.items():
        name = f"Harmonic{given}" if given.startswith("VQT.") else given
        value = values[full_name]
        if name == "HarmonicVQT.harmonics":
            if value != [1]:
                raise ConfigError(f"{full_name} = {value}: only [1] is supported")
        elif name in _GIN_NAMES:
            table, key = _GIN_NAMES[name].split(".")
            tables[table][key] = value
        elif name not in _GIN_IGNORED and name != "get_datasets.dataset_type_train":
            raise ConfigError(f"unknown parameter {full_name}{_suggestion(name, [*_GIN_NAMES, *_GIN_IGNORED])}")
    return config_from_dict(tables)


_ADAPTER = TypeAdapter(TrainConfig)


def _config_error(error: ValidationError) -> ConfigError:
    """The first error of Pydantic as one line: the setting, what is allowed, and the invalid value."""
    first = error.errors()[0]
    *parents, name = map(str, first["loc"]) if first["loc"] else [""]
    setting = ".".join(part for part in (*parents, name) if part)
    shown = reprlib.repr(first["input"])
    if first["type"] == "unexpected_keyword_argument":
        table = typing.get_type_hints(TrainConfig)[parents[0]] if parents else TrainConfig
        known = [item.name for item in fields(table)]
        return ConfigError(f"unknown setting {setting}{_suggestion(name, known)}")
    if first["type"] == "value_error":  # of ChromaNetConfig or VQTConfig
        return ConfigError(f"{setting}.{first['ctx']['error']}")
    if first["type"] == "dataclass_type":
        return ConfigError(f"{setting} must be a table, not {shown}")
    if first["type"] == "missing":
        return ConfigError(f"{'.'.join(parents)} needs more entries than {shown}")
    allowed = first["msg"].removeprefix("Input should be ").replace("integer", "whole number").replace("array", "list")
    return ConfigError(f"{setting} must be {allowed}, not {shown}")


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"


def _check(config: TrainConfig) -> None:
    rows = 1 if config.loss.name == "stone" else 2
    if config.network.rows != rows:
        raise ConfigError(f"the {config.loss.name} loss needs network.rows = {rows}")
    if config.network.gate_channels:
        raise ConfigError("network.gate_channels must be 0; stonecli_train.gate fits a gate after the training")
    if config.network.n_bins >= config.vqt.n_bins:
        raise ConfigError("network.n_bins must be below vqt.n_bins, because transpositions are crops of the bins")
    if config.input.shortest_seconds > config.input.window_seconds:
        raise ConfigError("input.shortest_seconds must be from 0 to input.window_seconds")
    for name, frames in (("window", config.segment_frames), ("shortest", config.shortest_frames)):
        if frames // config.input.frames_averaged < config.network.min_frames:
            raise ConfigError(
                f"input.{name}_seconds is too short: the network needs {config.network.min_frames} averaged frames"
            )
    if config.vqt.bins_per_octave != BINS_PER_OCTAVE:
        raise ConfigError(f"vqt.bins_per_octave must be {BINS_PER_OCTAVE}, because a bin of the network is a semitone")
    if config.loss.unlabeled == "mean_teacher" and config.loss.name != "cross_entropy":
        raise ConfigError(f"loss.unlabeled = mean_teacher needs the cross_entropy loss, not {config.loss.name}")
