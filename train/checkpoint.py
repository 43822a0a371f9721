"""Checkpoints: architecture, input features and weights of a network, in one file that cannot run code.

A checkpoint is written by ``torch.save`` as plain dictionaries, lists, numbers, strings and tensors, and read with
``weights_only=True``: an unpickler that builds nothing else. The hyper-parameters in it rebuild the network.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import reprlib
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from stonecli.errors import StoneError
from stonecli.util.atomic_file import atomic_file
from stonecli_train.chromanet import BINS_PER_OCTAVE, ChromaNet, ChromaNetConfig
from stonecli_train.errors import named
from stonecli_train.old_names import CHECKPOINT_NAMES, NETWORK_NAMES
from stonecli_train.vqt import VQTConfig

FORMAT = "stone-checkpoint"
FORMAT_VERSION = 1

TrainType = Literal["ks", "ks_mode"]

_OPTIONAL = ("rejection_threshold", "posterior_exponent", "exponent_per_doubling", "major_prior_odds")
"""Attributes that were added after the first checkpoints of this version."""

MAX_WINDOW_SECONDS = 600.0
MAX_VALUES = 1_000_000  # in lists and dictionaries; a run with its optimizer has a few thousand


class CheckpointError(StoneError):
    """The file is not a valid checkpoint; nothing in it was executed."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and everything needed to run it.

    Attributes:
        chromanet: hyper-parameters of the network.
        weights: state dictionary of the network.
        vqt: hyper-parameters of the VQT that computes its input.
        frames_averaged: VQT frames averaged into one before the network.
        corrects_tuning: whether the audio must be resampled to A = 440 Hz first.
        window_seconds: length of the windows that it was trained on.
        classes: names of the classes in output order; None if they are unknown, as after training without labels.
        circle_type: 1 or 7 for the circle of semitones or fifths in the CPSD loss; None if unknown or unused.
        rejection_threshold: minimum of the largest mean probability, 0..1; below it, a recording has no key
            (``stonecli_train.calibrate``).
        posterior_exponent, exponent_per_doubling: exponent of the pooled posterior (``stonecli.detection.pooling``,
            ``stonecli_train.calibrate``).
        major_prior_odds: prior odds of major against minor; 1 if equally likely.
        trained_on: one line for the model card.
        license: license of the weights.
        config: the resolved training configuration.
        state: training state for resuming (optimizer, counters); empty in a checkpoint for inference only.

    Raises:
        ValueError, TypeError: the attributes contradict each other, are out of range or have the wrong type.
    """

    chromanet: ChromaNetConfig
    weights: dict[str, Tensor]
    vqt: VQTConfig = field(default_factory=VQTConfig)
    frames_averaged: int = 1
    corrects_tuning: bool = False
    window_seconds: float = 15.0
    classes: tuple[str, ...] | None = None
    circle_type: int | None = None
    rejection_threshold: float = 0.0
    posterior_exponent: float = 1.0
    exponent_per_doubling: float = 0.0
    major_prior_odds: float = 1.0
    trained_on: str = ""
    license: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("weights", "config", "state"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} must be a dictionary")
        if not isinstance(self.trained_on, str) or not isinstance(self.license, str):
            raise TypeError("trained_on and license must be strings")
        if not isinstance(self.rejection_threshold, float) or not 0.0 <= self.rejection_threshold < 1.0:
            raise ValueError(f"rejection_threshold must be at least 0 and below 1, not {self.rejection_threshold!r}")
        for name, high, low in (
            ("posterior_exponent", 10.0, 0.01), ("exponent_per_doubling", 10.0, 0.0), ("major_prior_odds", 100.0, 0.01),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, float) or not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, not {value!r}")
        if not isinstance(self.circle_type, int | None):
            raise TypeError(f"circle_type must be an integer, not {type(self.circle_type).__name__}")
        if self.classes is not None and not all(isinstance(name, str) for name in self.classes):
            raise TypeError("the names of the classes must be strings")
        if self.vqt.bins_per_octave != BINS_PER_OCTAVE or self.chromanet.n_bins > self.vqt.n_bins:
            raise ValueError(
                f"a network with {self.chromanet.n_bins} semitone bins does not fit a VQT with {self.vqt.n_bins} bins,"
                f" {self.vqt.bins_per_octave} per octave"
            )
        if not isinstance(self.frames_averaged, int) or self.frames_averaged < 1:
            raise ValueError(f"frames_averaged must be at least 1, not {self.frames_averaged!r}")
        longest = max(self.window_seconds, self.minimum_samples / self.vqt.sample_rate)
        if not 0 < self.window_seconds <= longest <= MAX_WINDOW_SECONDS:
            raise ValueError(f"windows must be above 0 and at most {MAX_WINDOW_SECONDS:.0f} s long, not {longest} s")

    @property
    def train_type(self) -> TrainType:
        """``"ks"`` for 12 key signatures, ``"ks_mode"`` for 24 keys."""
        return "ks" if self.chromanet.rows == 1 else "ks_mode"

    @property
    def minimum_samples(self) -> int:
        """Minimum number of audio samples: enough for the transform, and for one output frame of the network."""
        frames = self.chromanet.min_frames * self.frames_averaged
        return max((frames - 1) * self.vqt.hop_length, self.vqt.min_samples)

    def without_gate(self) -> Checkpoint:
        """The checkpoint without the gate that ``stonecli_train.gate`` fitted after training."""
        weights = {name: value for name, value in self.weights.items() if not name.startswith("gate.")}
        return replace(self, chromanet=replace(self.chromanet, gate_channels=0, gate_statistics=2), weights=weights)

    def network(self) -> ChromaNet:
        """The network with these weights, in evaluation mode.

        Raises:
            CheckpointError: the weights do not fit the hyper-parameters.
        """
        try:
            with torch.device("meta"):  # check the shapes first: wrong ones must not allocate memory
                ChromaNet(self.chromanet).load_state_dict(dict(self.weights), assign=True)
            network = ChromaNet(self.chromanet)
            network.load_state_dict(self.weights)
        except (RuntimeError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise CheckpointError(f"its weights do not fit its architecture: {_first_lines(error)}") from error
        return network.eval()


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write ``checkpoint`` to ``path`` atomically; after an error, an older file is unchanged.

    Raises:
        OSError: the file cannot be written.
    """
    content = {"format": FORMAT, "version": FORMAT_VERSION} | {
        CHECKPOINT_NAMES.get(name, name): getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__
    }
    content["chromanet"] = _plain(
        {NETWORK_NAMES.get(name, name): value for name, value in asdict(checkpoint.chromanet).items()}
    )
    content["vqt"] = _plain(asdict(checkpoint.vqt))
    content["classes"] = list(checkpoint.classes) if checkpoint.classes else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable=True) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint of ``stone train`` at ``path``.

    Raises:
        CheckpointError: the file is not a checkpoint, or was written by a newer version; ``filename`` is the file.
        OSError: the file cannot be read.
    """
    with named(path):
        return checkpoint_from_content(load_untrusted(path))


def checkpoint_from_content(content: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint in the result of :func:`load_untrusted`.

    Raises:
        CheckpointError: the content is not one of ``stone train``.
    """
    if content.get("format") != FORMAT:
        raise CheckpointError("not a checkpoint of stone train")
    version = content.get("version")
    if not isinstance(version, int) or version != FORMAT_VERSION:
        raise CheckpointError(f"checkpoint version {reprlib.repr(version)} is unknown; update stone")
    try:
        names = {name: CHECKPOINT_NAMES.get(name, name) for name in Checkpoint.__dataclass_fields__}
        absent = {name for name in _OPTIONAL if names[name] not in content}
        values = {name: content[key] for name, key in names.items() if name not in absent}
        attributes = {name: attribute for attribute, name in NETWORK_NAMES.items()}
        network = {attributes.get(name, name): value for name, value in values["chromanet"].items()}
        values["chromanet"] = ChromaNetConfig(**_tuples(network))
        values["vqt"] = VQTConfig(**values["vqt"])
        values["classes"] = tuple(values["classes"]) if values["classes"] else None
        return Checkpoint(**values)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"damaged checkpoint: {_first_lines(error)}") from error


def load_untrusted(path: Path) -> dict[str, Any]:
    """The dictionary in a ``torch.save`` file, tensors on the CPU. Nothing in the file can run.

    Only plain values and tensors are built, and plain numbers from the numpy scalars that published checkpoints hold.

    Raises:
        CheckpointError: the file is damaged, contains other objects, or is not a dictionary.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        _check_archive(file)
        try:
            with torch.serialization.safe_globals(_NUMPY_SCALARS), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the error message has the details
                content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                "not a PyTorch checkpoint, or one that contains code, which stone does not run"
            ) from error
        except Exception as error:  # torch raises whatever a damaged archive or pickle leads to
            raise CheckpointError(
                "not a readable checkpoint: damaged, or another kind of file; choose a .pt file of stone train"
            ) from error
    if not isinstance(content, dict):
        raise CheckpointError("not a checkpoint: it does not contain a dictionary")
    _check_extent(content)
    return content


def _check_archive(file: BinaryIO) -> None:
    """Refuse an archive that is larger when unpacked: ``torch.save`` neither compresses nor overlaps records."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError):
        members = []  # the older format, or not an archive: torch checks it
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError("not a readable checkpoint: it is compressed, as torch.save never does")
    if sum(member.file_size for member in members) > size:
        raise CheckpointError("not a readable checkpoint: its records overlap")


def _check_extent(content: dict[str, Any]) -> None:
    """Refuse a structure of more than ``MAX_VALUES``: a few bytes of pickle can nest one list in itself 2^60 times."""
    pending: list[Any] = [content]
    seen = 0
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            seen += len(value)
            if seen > MAX_VALUES:
                raise CheckpointError(f"not a checkpoint: it holds more than {MAX_VALUES} values")
            pending += [*value.keys(), *value.values()] if isinstance(value, Mapping) else value


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Float64:
    """Replaces ``numpy.dtype`` in a pickle and accepts only float64, so that a file cannot define data types."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if name not in ("f8", "float64"):
            raise ValueError(f"unsupported data type {name!r}")
        self.byteorder = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byteorder = ">" if state[1] == ">" else "<"


def _float64_scalar(dtype: _Float64, data: bytes | str) -> float:
    """Replaces numpy's constructor of scalars: decodes eight bytes, which pickle protocol 2 stores as a string."""
    (number,) = struct.unpack(f"{dtype.byteorder}d", data.encode("latin-1") if isinstance(data, str) else data)
    return float(number)


# By the names that numpy 1 and numpy 2 use for a float64 in a pickle.
_NUMPY_SCALARS: list[Any] = [
    (_float64_scalar, "numpy.core.multiarray.scalar"),
    (_float64_scalar, "numpy._core.multiarray.scalar"),
    (_Float64, "numpy.dtype"),
]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
