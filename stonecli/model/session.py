"""KeyModel: run a self-describing ONNX file on CPU or CUDA, from windows of audio to key probabilities.

Everything that is needed to run a model, such as the order of its classes, is in its metadata (docs/formats.md, "Model
file").
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from stonecli.audio.channels import Samples
from stonecli.errors import DeviceError, ModelError, reason
from stonecli.model.guard import check_onnx
from stonecli.model.metadata import METADATA_KEY, ModelInfo, parse_info
from stonecli.model.runtime import onnxruntime
from stonecli.util.installation import how_to_install

if TYPE_CHECKING:
    from stonecli.model.batching import Batcher

Device = Literal["auto", "cpu", "cuda"]
Floats = npt.NDArray[np.float32]

DEFAULT_MODEL = "stone_8.onnx"
MAX_MODEL_BYTES = 64 << 20
MAX_MEMORY = 4 << 30  # bytes for all models of the process; the built-in model takes a fiftieth
MAX_CONSTANT = 64 << 20  # bytes per constant that is folded when a model is loaded
_ONNX_START = b"\x08"  # the tag of its first field, the version of the format
_NO_FOLDER = f"{os.devnull}/none"  # cannot exist, because it is below a device
CUDA_BATCH = 32  # windows; 350 MB of activations
_WARNING, _FATAL = 2, 4  # log levels of onnxruntime; warning is its default
SUM_TOLERANCE = 1e-3  # the probabilities of a window sum to 1 within this


@dataclass(frozen=True, eq=False)
class WindowProbabilities:
    """The output of a model for a batch of windows.

    Attributes:
        classes: float32 [batch, classes], in the order of ``ModelInfo.classes``.
        keys: float32 [batch, 24], by ``Key.index``.
    """

    classes: Floats
    keys: Floats


class KeyModel:
    """A loaded model; one instance may be used by many threads at once.

    On CUDA, windows submitted by many files are run in batches (``stonecli.model.batching``).

    Args:
        path: the ONNX file; None for the built-in model.
        device: ``"auto"`` uses CUDA if it works, otherwise the CPU; ``"cuda"`` fails if CUDA does not work.
        threads: threads per call; use 1 to analyze many files in parallel.
        sha256: required SHA-256 of the file, in hexadecimal; None accepts any.
        batch: maximum number of windows that :meth:`submit` runs at a time; None for the default of the device: 32 on
            CUDA, 1 on the CPU, whose cache fits no more.

    Attributes:
        name: file name of the model.
        info: description of the model.
        device: device in use: ``"cpu"`` or ``"cuda"``.

    Raises:
        ModelError: the file is not a valid key model, or has another SHA-256.
        DeviceError: ``"cuda"`` was requested and does not work.
        OSError: the file cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        threads: int = 1,
        sha256: str | None = None,
        batch: int | None = None,
    ) -> None:
        self._arguments = (path, device, threads, sha256, batch)
        content = read_model(path)
        self.name: str = Path(path).name if path is not None else DEFAULT_MODEL
        self._sha256 = None if path is None and sha256 is None else _sha256_of(content)
        self._content = content if self._sha256 is None else b""  # 1 MB, hashed on first use of ``sha256``
        if sha256 is not None and self.sha256 != sha256:
            raise ModelError(f"wrong model: its SHA-256 is {self.sha256}")
        # Checks the same bytes that onnxruntime loads. The graph of the built-in model is trusted like this code.
        self.info: ModelInfo = describe_model(content, with_graph=path is not None)
        session, self.device = _open_session(content, device, threads)
        self._network = _Network(session, self.info)
        self._batcher: Batcher[WindowProbabilities] | None = None
        batch = (CUDA_BATCH if self.device == "cuda" else 1) if batch is None else batch
        if batch != 1:
            from stonecli.model.batching import Batcher  # imported late to start faster

            self._batcher = Batcher(self._network.one_by_one, batch)
            weakref.finalize(self, self._batcher.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyModel, self._arguments  # a session cannot be pickled; the other process loads the model

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal; of the built-in model only on demand, as OpenSSL takes 3 ms to load."""
        if self._sha256 is None:
            self._sha256 = _sha256_of(self._content)
        return self._sha256

    def __call__(self, audio: Samples) -> WindowProbabilities:
        """Probabilities for float32 [batch, samples] at ``info.sample_rate``, at least ``info.minimum_samples`` long.

        Raises:
            ModelError: the model cannot be run, or its output is not a probability distribution.
        """
        return self._network(audio)

    def submit(self, window: Samples) -> Callable[[], WindowProbabilities]:
        """A function that returns the probabilities of one window, float32 [samples], as a batch of one.

        If windows are run in batches, the caller can decode on before it calls the function. This method blocks if too
        many windows are queued.

        Raises:
            ModelError: as above, from this method or from the returned function.
        """
        if self._batcher is not None:
            return self._batcher.submit(window).result
        answer = self._network(window[None])
        return lambda: answer


class _Network:
    """A session and the order of its outputs, without a reference to its KeyModel, which could not be freed then."""

    def __init__(self, session: onnxruntime.InferenceSession, info: ModelInfo) -> None:
        self._session = session
        self._info = info
        self._outputs = _check_outputs(session, info)
        self._key_of_class = np.array([keys[0].index for keys in info.classes])

    def __call__(self, audio: Samples) -> WindowProbabilities:
        """As :meth:`KeyModel.__call__`."""
        try:
            results = self._session.run(self._outputs, {"audio": np.ascontiguousarray(audio, dtype=np.float32)})
        except Exception as error:  # onnxruntime has a dozen exception classes
            raise ModelError(f"the model failed: {reason(error)}") from error
        return self._probabilities(len(audio), results)

    def one_by_one(self, audio: Samples) -> list[WindowProbabilities]:
        """The probabilities of each window of a batch, with input and output bound to the device."""
        try:
            binding = self._session.io_binding()
            binding.bind_cpu_input("audio", np.ascontiguousarray(audio, dtype=np.float32))
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding)
            results = binding.copy_outputs_to_cpu()
        except Exception as error:  # see __call__
            raise ModelError(f"the model failed: {reason(error)}") from error
        whole = self._probabilities(len(audio), results)
        return [
            WindowProbabilities(whole.classes[item : item + 1], whole.keys[item : item + 1])
            for item in range(len(audio))
        ]

    def _probabilities(self, batch: int, results: Sequence[Floats]) -> WindowProbabilities:
        """The outputs, checked and sorted by key."""
        classes = results[0]
        if classes.shape != (batch, len(self._info.classes)) or not _are_distributions(classes):
            raise ModelError("the output of the model is not a probability distribution")
        keys = np.zeros((batch, 24), dtype=np.float32)
        if self._info.train_type == "ks_mode":
            keys[:, self._key_of_class] = classes
        else:
            major_share = results[1]
            if major_share.shape != classes.shape or not ((major_share >= 0) & (major_share <= 1)).all():
                raise ModelError("the shares of major in the model's output are not 0 to 1")
            keys[:, self._key_of_class] = classes * major_share
            keys[:, [keys_of[1].index for keys_of in self._info.classes]] = classes * (1 - major_share)
        return WindowProbabilities(classes, keys)


@lru_cache(maxsize=4)
def default_model(device: Device = "auto") -> KeyModel:
    """The built-in model, loaded once per process."""
    return KeyModel(device=device)


def built_in_path() -> Path:
    """Path of the built-in model."""
    return Path(__file__).parent / DEFAULT_MODEL


def read_model(path: str | os.PathLike[str] | None) -> bytes:
    """The bytes of the model at ``path``, or of the built-in model for None; at most ``MAX_MODEL_BYTES``.

    Raises:
        ModelError: the file is larger.
        OSError: it cannot be read.
    """
    if path is None:
        return built_in_path().read_bytes()
    with Path(path).open("rb") as file:
        content = file.read(MAX_MODEL_BYTES + 1)  # the size in the directory may be wrong or change
    if len(content) > MAX_MODEL_BYTES:
        raise ModelError(f"not a key model: larger than {MAX_MODEL_BYTES >> 20} MB")
    return content


def describe_model(content: bytes, *, with_graph: bool = True) -> ModelInfo:
    """The description of a model whose bytes were checked; nothing is run.

    ``with_graph=False`` is for the built-in model, whose graph is checked by the tests.

    Raises:
        ModelError: it is not a key model, or contains something that is not allowed.
    """
    try:
        text = check_onnx(content, with_graph=with_graph).get(METADATA_KEY)
    except ModelError as error:
        if not content.startswith(_ONNX_START):
            raise ModelError("not an ONNX model; stone models lists the models") from error
        raise
    if text is None:
        raise ModelError("not a key model: no stone metadata; create one with stone export")
    return parse_info(text)


def _open_session(
    content: bytes, device: Device, threads: int
) -> tuple[onnxruntime.InferenceSession, Literal["cpu", "cuda"]]:
    """A session and the device that it runs on."""
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {device!r}; must be auto, cpu or cuda")
    if device != "cpu":
        reason = _why_no_cuda()
        if reason is None:
            session = _try_cuda(content, threads)
            if session is not None:
                return session, "cuda"
            reason = f"CUDA or cuDNN libraries are missing or too old; {how_to_install('cuda')}"
        if device == "cuda":
            raise DeviceError(f"CUDA is not available: {reason}; to use the CPU, leave out --device cuda")
    return _new_session(content, threads, ["CPUExecutionProvider"]), "cpu"


def cpu_session(content: bytes) -> onnxruntime.InferenceSession:
    """A session on one thread of the CPU, for a model whose bytes are trusted.

    Raises:
        ModelError: it cannot be loaded.
    """
    return _new_session(content, 1, ["CPUExecutionProvider"])


def _new_session(content: bytes, threads: int, providers: Sequence[Any]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL  # stone reports failures itself
    # ONNX models may load weights from any file; key models may not.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
    options.add_session_config_entry(
        "session.load_model_format", "ONNX"
    )  # the checked format, not that of ONNX Runtime
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(MAX_CONSTANT))
    _limit_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        # No fallback: onnxruntime would report it on standard output, where stone prints results.
        return onnxruntime.InferenceSession(content, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # see _Network.__call__
        raise ModelError(f"not a model that can be loaded: {reason(error)}") from error


@lru_cache(maxsize=1)
def _limit_memory() -> None:
    """Limit all models of this process to ``MAX_MEMORY``: a graph of a few hundred bytes can allocate any amount."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    defaults = dict.fromkeys(("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk"), -1)
    with suppress(Exception):  # another library in this process has registered an allocator
        onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY} | defaults))


def _why_no_cuda() -> str | None:
    """Why CUDA is not available; None if there is a device and a runtime with CUDA."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return f"onnxruntime-gpu is missing; {how_to_install('cuda')}"
    import ctypes  # imported late: a tenth of the load time of this package

    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
            return "no NVIDIA GPU found"
    except (OSError, AttributeError):
        return "no NVIDIA driver is installed"
    return None


def _try_cuda(content: bytes, threads: int) -> onnxruntime.InferenceSession | None:
    """A session that runs on CUDA; None, without any message, if there is none."""
    from contextlib import redirect_stdout
    from io import StringIO

    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        with redirect_stdout(StringIO()):  # onnxruntime prints each missing library
            onnxruntime.preload_dlls()  # CUDA and cuDNN installed by pip
            session = _new_session(content, threads, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    except Exception:  # the CPU is used instead
        return None
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    return session if "CUDAExecutionProvider" in session.get_providers() else None


def _check_outputs(session: onnxruntime.InferenceSession, info: ModelInfo) -> list[str]:
    """Names of the outputs to compute, after checking that inputs and outputs match the description."""
    inputs = {item.name: item for item in session.get_inputs()}
    outputs = {item.name: item for item in session.get_outputs()}
    names = ["probabilities"] if info.train_type == "ks_mode" else ["probabilities", "major_share"]
    if set(inputs) != {"audio"} or not set(names) <= set(outputs):
        raise ModelError("the model's inputs and outputs are not those of a key model")
    for item in (inputs["audio"], *(outputs[name] for name in names)):
        if item.type != "tensor(float)" or len(item.shape) != 2:
            raise ModelError(f"the model's {item.name!r} is not a float32 matrix")
    if any(outputs[name].shape[1] != len(info.classes) for name in names):
        raise ModelError("the number of model outputs is not the number of classes")
    return names


def _are_distributions(rows: Floats) -> bool:
    """Whether each row of [batch, classes] is finite, not negative, and sums to 1 within ``SUM_TOLERANCE``."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < SUM_TOLERANCE).all())


def _sha256_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
