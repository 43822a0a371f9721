"""Exports a checkpoint to a self-describing ONNX file; checks the class order by the pitch fork, and the outputs."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import soxr
import torch
from torch import Tensor, nn

from stonecli._version import __version__
from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli.model.metadata import FORMAT_VERSION, METADATA_KEY
from stonecli.model.session import KeyModel, cpu_session
from stonecli.util.atomic_file import atomic_file
from stonecli_export.context import context_frames
from stonecli_export.graph import build_model
from stonecli_export.low_rate_vqt import LowRateVQT
from stonecli_export.pitch_fork import check_recording, find_class_order, play_key
from stonecli_export.published import read_checkpoint
from stonecli_train.checkpoint import Checkpoint, file_sha256
from stonecli_train.chromanet import ChromaNet, average_frames
from stonecli_train.errors import named
from stonecli_train.vqt import VQT

TOLERANCE = 1e-4  # maximum difference of a probability between ONNX and PyTorch
LOW_RATE_TOLERANCE = 0.05  # maximum difference in one window between half the sample rate and the full one


class ExportError(StoneError):
    """The model cannot be exported, or differs from the checkpoint; no file was written."""


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        path: path of the model file.
        classes: names of the classes in output order.
        order_was_known: True if the checkpoint stated or implied that order, False if the pitch fork found it.
        difference: largest difference of a probability between ONNX and PyTorch.
        size: size of the file in bytes.
    """

    path: Path
    classes: tuple[str, ...]
    order_was_known: bool
    difference: float
    size: int


class AudioNetwork(nn.Module):
    """The complete model in PyTorch: audio float32 [batch, samples] -> probabilities [batch, classes].

    Args:
        checkpoint: the checkpoint.
        context: number of frames at each end of the audio that are dropped.
    """

    def __init__(self, checkpoint: Checkpoint, context: int = 0) -> None:
        super().__init__()
        self.vqt = VQT(checkpoint.vqt)
        self.chromanet: ChromaNet = checkpoint.network()
        self.frames_averaged = checkpoint.frames_averaged
        self.context = context

    def forward(self, audio: Tensor) -> Tensor:
        """The probabilities, float32 [batch, classes]; the network uses the lowest bins of the transform."""
        magnitude = self.vqt.magnitude(audio)
        features = self.vqt.decibels(magnitude[:, :, self.context : magnitude.shape[2] - self.context])
        features = features[:, : self.chromanet.config.n_bins]
        probabilities: Tensor = self.chromanet(average_frames(features, self.frames_averaged)[:, None])
        return probabilities


def export_checkpoint(checkpoint_path: Path, model_path: Path, pitch_fork: Path | None = None) -> ExportReport:
    """Write the model of a checkpoint to ``model_path``; returns the result of the export.

    Args:
        checkpoint_path: a checkpoint of ``stone train``, or a published one (``stonecli_export.published``).
        model_path: path of the model file, which is replaced atomically after all checks have passed.
        pitch_fork: a recording in C major that the model must detect, besides the synthesized fork.

    Raises:
        CheckpointError: the file is not a valid checkpoint; nothing in it was run.
        ClassOrderError: the model does not distinguish keys, or its class order is not the stated one.
        ExportError: the outputs of ONNX and PyTorch differ, or the model would replace an input.
        AudioError: the recording cannot be decoded.
        OSError: a file cannot be read or written.
    """
    _check_target(model_path, checkpoint_path, pitch_fork)
    with named(checkpoint_path):
        checkpoint, classes, content, difference = _build(checkpoint_path)
    with atomic_file(model_path, durable=True) as temporary:
        temporary.write_bytes(content)
        model = KeyModel(temporary, device="cpu")  # checks that the runtime accepts the file
        if pitch_fork is not None:
            with named(pitch_fork):
                _check_with_recording(model, pitch_fork, classes)
    return ExportReport(model_path, classes, checkpoint.classes is not None, difference, len(content))


def export_straightforward(checkpoint_path: Path, model_path: Path) -> None:
    """Write the model with the transform of training at the full sample rate, as a reference for the fast model.

    Raises:
        CheckpointError, OSError: as for :func:`export_checkpoint`.
        ExportError: the checkpoint does not state its classes.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    if checkpoint.classes is None:
        raise ExportError("the checkpoint does not state its classes")
    context = context_frames(checkpoint)
    model = build_model(checkpoint, _major_tonic_bins(checkpoint, checkpoint.classes), context=context)
    describe(model, checkpoint, checkpoint.classes, file_sha256(checkpoint_path), context)
    with atomic_file(model_path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _build(checkpoint_path: Path) -> tuple[Checkpoint, tuple[str, ...], bytes, float]:
    """The checkpoint, its classes, the bytes of the model, and the largest difference from PyTorch."""
    checkpoint = read_checkpoint(checkpoint_path)
    context = context_frames(checkpoint)
    network = AudioNetwork(checkpoint, context).eval()
    rate = checkpoint.vqt.sample_rate
    seconds = max(checkpoint.window_seconds, checkpoint.minimum_samples / rate)
    seconds += 2 * context * checkpoint.vqt.hop_length / rate

    def predict(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(audio)).numpy())

    classes = find_class_order(predict, checkpoint.chromanet.rows, seconds, rate, checkpoint.classes)
    tonics = _major_tonic_bins(checkpoint, classes)
    model = build_model(checkpoint, tonics, context=context)
    difference = _difference(model.SerializeToString(), predict, checkpoint, seconds)
    if not difference <= TOLERANCE:
        raise ExportError(f"the outputs of ONNX and PyTorch differ by {difference:.1e} (maximum: {TOLERANCE:.0e})")
    low_rate = LowRateVQT.of(checkpoint)
    if low_rate is not None:  # the file gets the model at half the rate, which is compared with a larger tolerance
        model = build_model(checkpoint, tonics, low_rate, context)
        distance = _low_rate_difference(model.SerializeToString(), predict, checkpoint, seconds)
        if not distance <= LOW_RATE_TOLERANCE:
            raise ExportError(
                f"half the sample rate changes probabilities by {distance:.3f} (maximum: {LOW_RATE_TOLERANCE})"
            )
    describe(model, checkpoint, classes, file_sha256(checkpoint_path), context, low_rate)
    return checkpoint, classes, model.SerializeToString(deterministic=True), difference


def _check_target(model_path: Path, checkpoint_path: Path, pitch_fork: Path | None) -> None:
    """Check that the model can be written and that the pitch fork exists, before anything slow starts.

    Raises:
        OSError: the path is a folder, its folder does not exist, or the pitch fork does not exist.
        ExportError: the model would replace the checkpoint or the pitch fork.
    """
    if model_path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(model_path))
    if not model_path.absolute().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(model_path.parent))
    if pitch_fork is not None:
        pitch_fork.stat()
    for source in (checkpoint_path, pitch_fork):
        if source is not None and model_path.exists() and model_path.samefile(source):
            raise ExportError(f"the model would replace its own input {source.name}; choose another file")


def describe(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    classes: tuple[str, ...],
    sha256: str,
    context: int = 0,
    low_rate: LowRateVQT | None = None,
) -> None:
    """Add the metadata of docs/formats.md ("Model file") to the model."""
    rate, minimum, hop = checkpoint.vqt.sample_rate, checkpoint.minimum_samples, checkpoint.vqt.hop_length
    if low_rate is not None:
        rate, minimum, hop = low_rate.sample_rate, max(-(-minimum // 2), low_rate.min_samples), low_rate.hop
    description = {
        "format_version": FORMAT_VERSION,
        "train_type": checkpoint.train_type,
        "classes": list(classes),
        "corrects_tuning": checkpoint.corrects_tuning,
        "frames_averaged": checkpoint.frames_averaged,
        "sample_rate": rate,
        "window_seconds": checkpoint.window_seconds,
        "minimum_samples": minimum + 2 * context * hop,
        "context_samples": context * hop,
        "circle_type": checkpoint.circle_type,
        "temperature": checkpoint.chromanet.temperature,
        "least_confidence": checkpoint.rejection_threshold,
        "sharpness": checkpoint.posterior_exponent,
        "sharpness_per_doubling": checkpoint.exponent_per_doubling,
        "major_odds": checkpoint.major_prior_odds,
        "licence": checkpoint.license,
        "trained_on": checkpoint.trained_on,
        "checkpoint_sha256": sha256,
        "exported_by": f"stone {__version__}",
    }
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(description))


def _major_tonic_bins(checkpoint: Checkpoint, classes: tuple[str, ...]) -> list[int] | None:
    """Bins of the major tonics above the VQT's lowest bin, in output order; None for a model of 24 keys."""
    if checkpoint.chromanet.rows == 2:
        return None
    lowest = round(12 * np.log2(checkpoint.vqt.fmin / 440.0)) + 9  # pitch class of the lowest bin, where A is 9
    return [(Key.parse(name.split("/")[0]).tonic - lowest) % 12 for name in classes]


def _difference(content: bytes, predict: object, checkpoint: Checkpoint, seconds: float) -> float:
    """Largest difference of a probability between the ONNX model and ``predict``, over two lengths and batch sizes."""
    session = cpu_session(content)
    rate = checkpoint.vqt.sample_rate
    shortest = checkpoint.minimum_samples + 2 * context_frames(checkpoint) * checkpoint.vqt.hop_length
    noise = np.random.default_rng(0).standard_normal(shortest).astype(np.float32)
    tune = play_key(Key(7, "minor"), 0, seconds, rate)
    # Between pure tones there are only rounding errors, which the logarithm amplifies; recordings have noise there.
    tune += 1e-3 * np.random.default_rng(1).standard_normal(len(tune)).astype(np.float32)
    odd = max(shortest, len(tune) - 777)
    batches = [np.stack([tune, tune[::-1]]), tune[None, :odd], 0.1 * noise[None]]
    assert callable(predict)  # noqa: S101
    differences = [
        np.abs(session.run(["probabilities"], {"audio": np.ascontiguousarray(batch)})[0] - predict(batch.copy())).max()
        for batch in batches
    ]
    return float(np.max(differences))  # unlike max(), this does not ignore NaN


def _low_rate_difference(content: bytes, predict: object, checkpoint: Checkpoint, seconds: float) -> float:
    """Largest difference of a probability between the model at half the rate and ``predict``, in two keys."""
    session = cpu_session(content)
    rate = checkpoint.vqt.sample_rate
    assert callable(predict)  # noqa: S101
    differences = []
    for key in (Key(7, "minor"), Key(0, "major")):
        tune = play_key(key, 0, seconds, rate)
        tune += 1e-3 * np.random.default_rng(1).standard_normal(len(tune)).astype(np.float32)  # as above
        low = soxr.resample(tune, rate, rate // 2, quality="HQ")
        answer = session.run(["probabilities"], {"audio": low[None]})[0]
        differences.append(np.abs(answer - predict(tune[None])).max())
    return float(np.max(differences))


def _check_with_recording(model: KeyModel, recording: Path, classes: tuple[str, ...]) -> None:
    from stonecli.detection.detect import detect_key

    estimate = detect_key(recording, model)
    tonal = [window.classes for window in estimate.windows if window.tonal]
    if not tonal:
        raise ExportError("the recording given as pitch fork is not tonal")
    check_recording(np.mean(tonal, axis=0), classes, Key(0, "major"))
