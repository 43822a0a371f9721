"""KeyModel: a self-describing ONNX file, run on CPU or CUDA, that turns windows of audio into key probabilities.

What a model needs to be run rides in its metadata (DESIGN.md, "The model file"): the order of its classes comes from
there alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from stonecli.audio import Samples
from stonecli.errors import DeviceError, ModelError
from stonecli.key import Key

Device = Literal["auto", "cpu", "cuda"]
Floats = npt.NDArray[np.float32]

DEFAULT_MODEL = "stone_1.onnx"
METADATA_KEY = "stone"
FORMAT_VERSION = 1
MAX_MODEL_BYTES = 256 << 20
MAX_WINDOW_SECONDS = 600.0
_NO_FOLDER = f"{os.devnull}/none"  # cannot be made, for it lies below a device
SUM_TOLERANCE = 1e-3  # a softmax that was exported sums to 1 within this


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
        minimum_samples: shortest audio that it can be given.
        circle_type: 1 or 7, the circle of its training loss; None where unknown.
        temperature: of its softmax.
        least_confidence: of an answer, 0..1; below, a recording has no key.
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
    circle_type: int | None
    temperature: float
    least_confidence: float
    licence: str
    trained_on: str
    checkpoint_sha256: str

    @property
    def window_samples(self) -> int:
        """Samples in a window."""
        return max(round(self.window_seconds * self.sample_rate), self.minimum_samples)


@dataclass(frozen=True, eq=False)
class WindowProbabilities:
    """What the model says of a batch of windows.

    Attributes:
        classes: float32 [batch, classes], the model's own output in the order of ``ModelInfo.classes``.
        keys: float32 [batch, 24], the same by ``Key.index``.
    """

    classes: Floats
    keys: Floats


class KeyModel:
    """A loaded model; one instance may be used by many threads at once.

    Args:
        path: the ONNX file; None for the one that stone carries.
        device: ``"auto"`` takes CUDA where it is there and loads, else the CPU; ``"cuda"`` insists.
        threads: that one call may use; 1 suits many files at once.

    Raises:
        ModelError: the file is no model of stone.
        DeviceError: ``"cuda"`` was asked for and is not there.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, device: Device = "auto", threads: int = 1) -> None:
        self._arguments = (path, device, threads)
        content = _read_model(path)
        self.name = Path(path).name if path is not None else DEFAULT_MODEL
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session, self.device = _open_session(content, device, threads)
        self.info = _read_info(self._session)
        self._outputs = _check_outputs(self._session, self.info)
        self._key_of_class = np.array([keys[0].index for keys in self.info.classes])

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyModel, self._arguments  # a session cannot travel; the other process loads its own

    def __call__(self, audio: Samples) -> WindowProbabilities:
        """Probabilities for float32 [batch, samples] at ``info.sample_rate``, at least ``info.minimum_samples`` long.

        Raises:
            ModelError: the model cannot be run, or what it says are no probabilities.
        """
        try:
            results = self._session.run(self._outputs, {"audio": np.ascontiguousarray(audio, dtype=np.float32)})
        except Exception as error:  # onnxruntime raises a dozen classes of its own
            raise ModelError(f"the model failed: {_one_line(error)}") from error
        classes: Floats = results[0]
        if classes.shape != (len(audio), len(self.info.classes)) or not _are_distributions(classes):
            raise ModelError("the model's answer is not a distribution of probabilities")
        keys = np.zeros((len(audio), 24), dtype=np.float32)
        if self.info.train_type == "ks_mode":
            keys[:, self._key_of_class] = classes
        else:
            major_share: Floats = results[1]
            if major_share.shape != classes.shape or not ((major_share >= 0) & (major_share <= 1)).all():
                raise ModelError("the model's shares of major are not from 0 to 1")
            keys[:, self._key_of_class] = classes * major_share
            keys[:, [keys_of[1].index for keys_of in self.info.classes]] = classes * (1 - major_share)
        return WindowProbabilities(classes, keys)


@lru_cache(maxsize=4)
def default_model(device: Device = "auto") -> KeyModel:
    """The model that stone carries, loaded once a process."""
    return KeyModel(device=device)


def _read_model(path: str | os.PathLike[str] | None) -> bytes:
    if path is None:
        return (resources.files("stonecli") / "models" / DEFAULT_MODEL).read_bytes()
    if Path(path).stat().st_size > MAX_MODEL_BYTES:
        raise ModelError(f"not a key model: larger than {MAX_MODEL_BYTES >> 20} MB")
    return Path(path).read_bytes()


def _open_session(
    content: bytes, device: Device, threads: int
) -> tuple[onnxruntime.InferenceSession, Literal["cpu", "cuda"]]:
    """A session on the wanted device."""
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"no such device: {device!r} (auto, cpu or cuda)")
    if device != "cpu":
        reason = _why_no_cuda()
        if reason is None:
            session = _try_cuda(content, threads)
            if session is not None:
                return session, "cuda"
            reason = "CUDA or cuDNN libraries are missing or too old: pip install 'stonecli[cuda]'"
        if device == "cuda":
            raise DeviceError(f"no CUDA device can be used: {reason}")
    return _new_session(content, threads, ["CPUExecutionProvider"]), "cpu"


def _new_session(content: bytes, threads: int, providers: Sequence[Any]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails, we say ourselves
    # A model may keep weights in other files, anywhere below the current folder or above it: not one of ours.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
    try:
        return onnxruntime.InferenceSession(content, options, providers=list(providers))
    except Exception as error:  # as above
        raise ModelError(f"not a model that can be loaded: {_one_line(error)}") from error


def _why_no_cuda() -> str | None:
    """Why CUDA cannot be used, or None where a device and the runtime for it are there."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of onnxruntime has no CUDA"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
            return "no NVIDIA GPU answers"
    except (OSError, AttributeError):
        return "no NVIDIA driver is installed"
    return None


def _try_cuda(content: bytes, threads: int) -> onnxruntime.InferenceSession | None:
    """A session that does run on CUDA, or None: onnxruntime itself would fall back with a warning."""
    try:
        onnxruntime.preload_dlls()  # the CUDA and cuDNN that pip installed
        session = _new_session(content, threads, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    except Exception:  # whatever fails here, the CPU can do the work
        return None
    return session if "CUDAExecutionProvider" in session.get_providers() else None


def _read_info(session: onnxruntime.InferenceSession) -> ModelInfo:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError("not a key model: it does not describe itself (make one with: stone export)")
    try:
        values = json.loads(text)
        version = values["format_version"]
        if version != FORMAT_VERSION:
            raise ModelError(f"model format {version!r} is not known to this version of stone")
        info = ModelInfo(
            train_type=values["train_type"],
            classes=tuple(tuple(Key.parse(key) for key in name.split("/")) for name in values["classes"]),
            corrects_tuning=bool(values["corrects_tuning"]),
            frames_averaged=int(values["frames_averaged"]),
            sample_rate=int(values["sample_rate"]),
            window_seconds=float(values["window_seconds"]),
            minimum_samples=int(values["minimum_samples"]),
            circle_type=values["circle_type"],
            temperature=float(values["temperature"]),
            least_confidence=float(values.get("least_confidence", 0.0)),  # of format 1, but not from the start
            licence=str(values["licence"]),
            trained_on=str(values["trained_on"]),
            checkpoint_sha256=str(values["checkpoint_sha256"]),
        )
    except ModelError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ModelError(f"the model's description of itself is damaged: {_one_line(error)}") from error
    _check_info(info)
    return info


def _check_info(info: ModelInfo) -> None:
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


def _check_outputs(session: onnxruntime.InferenceSession, info: ModelInfo) -> list[str]:
    """Names of the outputs to ask for, after checking that the graph has what the description promises."""
    inputs = {item.name: item for item in session.get_inputs()}
    outputs = {item.name: item for item in session.get_outputs()}
    wanted = ["probabilities"] if info.train_type == "ks_mode" else ["probabilities", "major_share"]
    if set(inputs) != {"audio"} or not set(wanted) <= set(outputs):
        raise ModelError("the model's inputs and outputs are not those of a key model")
    for item in (inputs["audio"], *(outputs[name] for name in wanted)):
        if item.type != "tensor(float)" or len(item.shape) != 2:
            raise ModelError(f"the model's {item.name!r} is no float32 matrix")
    if any(outputs[name].shape[1] != len(info.classes) for name in wanted):
        raise ModelError("the model has not as many outputs as classes")
    return wanted


def _are_distributions(rows: Floats) -> bool:
    """Whether each row of [batch, classes] is finite, not negative, and sums to 1 as closely as float32 may."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < SUM_TOLERANCE).all())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
