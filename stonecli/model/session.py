"""KeyModel: a self-describing ONNX file, run on CPU or CUDA, that turns windows of audio into key probabilities.

What a model needs to be run rides in its metadata (docs/formats.md, "Model file"): the order of its classes comes from
there alone.
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

from stonecli.audio.decode import Samples
from stonecli.errors import DeviceError, ModelError
from stonecli.model.guard import check_onnx
from stonecli.model.metadata import METADATA_KEY, ModelInfo, parse_info
from stonecli.model.runtime import onnxruntime

if TYPE_CHECKING:
    from stonecli.model.batching import Batcher

Device = Literal["auto", "cpu", "cuda"]
Floats = npt.NDArray[np.float32]

DEFAULT_MODEL = "stone_6.onnx"
MAX_MODEL_BYTES = 64 << 20
MAX_MEMORY = 4 << 30  # of all that models are computing at a time; hearing takes a fiftieth
MAX_CONSTANT = 64 << 20  # bytes of what is computed once, when a model is loaded
_NO_FOLDER = f"{os.devnull}/none"  # cannot be made, for it lies below a device
CUDA_BATCH = 32  # windows; 350 MB of activations
_WARNING, _FATAL = 2, 4  # from which severity on onnxruntime logs; the first unless it is told
SUM_TOLERANCE = 1e-3  # a softmax that was exported sums to 1 within this


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

    On CUDA, windows that come one by one from many files are run in batches (``stonecli.model.batching``).

    Args:
        path: the ONNX file; None for the one that stone carries.
        device: ``"auto"`` takes CUDA where it is there and loads, else the CPU; ``"cuda"`` insists.
        threads: that one call may use; 1 suits many files at once.
        sha256: what the file has to have, in hexadecimal; None takes any.
        batch: windows that :meth:`listen` runs at a time; None for what suits the device: 1 on the CPU, whose cache
            holds no more.

    Attributes:
        name: of the file.
        info: what the model says of itself.
        device: where it runs: ``"cpu"`` or ``"cuda"``.

    Raises:
        ModelError: the file is no model of stone, or not the one that was meant.
        DeviceError: ``"cuda"`` was asked for and is not there.
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
        self._content = content if self._sha256 is None else b""  # 1 MB, to be hashed when somebody asks
        if sha256 is not None and self.sha256 != sha256:
            raise ModelError(f"not the model that was meant: its SHA-256 is {self.sha256}")
        # Before onnxruntime gets these very bytes. Whoever can change stone's own model can change this line as well.
        self.info: ModelInfo = describe_model(content, with_graph=path is not None)
        session, self.device = _open_session(content, device, threads)
        self._network = _Network(session, self.info)
        self._batcher: Batcher[WindowProbabilities] | None = None
        batch = (CUDA_BATCH if self.device == "cuda" else 1) if batch is None else batch
        if batch != 1:
            from stonecli.model.batching import Batcher  # here: the start of the program can do without threads

            self._batcher = Batcher(self._network.one_by_one, batch)
            weakref.finalize(self, self._batcher.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyModel, self._arguments  # a session cannot travel; the other process loads its own

    @property
    def sha256(self) -> str:
        """Of the file, in hexadecimal; of the built-in model made on first use, for OpenSSL takes 3 ms to load."""
        if self._sha256 is None:
            self._sha256 = _sha256_of(self._content)
        return self._sha256

    def __call__(self, audio: Samples) -> WindowProbabilities:
        """Probabilities for float32 [batch, samples] at ``info.sample_rate``, at least ``info.minimum_samples`` long.

        Raises:
            ModelError: the model cannot be run, or what it says are no probabilities.
        """
        return self._network(audio)

    def listen(self, window: Samples) -> Callable[[], WindowProbabilities]:
        """What returns the probabilities of one window, float32 [samples], as a batch of one; to be called later.

        Where windows are run in batches, the caller can go on reading its file meanwhile. It has to wait here when too
        many windows are under way.

        Raises:
            ModelError: as above, here or from the call that is returned.
        """
        if self._batcher is not None:
            return self._batcher.submit(window).result
        answer = self._network(window[None])
        return lambda: answer


class _Network:
    """A session and what its outputs mean. It does not know its KeyModel, which could not be let go otherwise."""

    def __init__(self, session: onnxruntime.InferenceSession, info: ModelInfo) -> None:
        self._session = session
        self._info = info
        self._outputs = _check_outputs(session, info)
        self._key_of_class = np.array([keys[0].index for keys in info.classes])

    def __call__(self, audio: Samples) -> WindowProbabilities:
        """As :meth:`KeyModel.__call__`."""
        try:
            results = self._session.run(self._outputs, {"audio": np.ascontiguousarray(audio, dtype=np.float32)})
        except Exception as error:  # onnxruntime raises a dozen classes of its own
            raise ModelError(f"the model failed: {_one_line(error)}") from error
        return self._probabilities(len(audio), results)

    def one_by_one(self, audio: Samples) -> list[WindowProbabilities]:
        """The probabilities of each window of a batch, bound to the device: the audio goes there, they come back."""
        try:
            binding = self._session.io_binding()
            binding.bind_cpu_input("audio", np.ascontiguousarray(audio, dtype=np.float32))
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding)
            results = binding.copy_outputs_to_cpu()
        except Exception as error:  # as above
            raise ModelError(f"the model failed: {_one_line(error)}") from error
        whole = self._probabilities(len(audio), results)
        return [
            WindowProbabilities(whole.classes[item : item + 1], whole.keys[item : item + 1])
            for item in range(len(audio))
        ]

    def _probabilities(self, batch: int, results: Sequence[Floats]) -> WindowProbabilities:
        """What the outputs say, if they are probabilities."""
        classes = results[0]
        if classes.shape != (batch, len(self._info.classes)) or not _are_distributions(classes):
            raise ModelError("the model's answer is not a distribution of probabilities")
        keys = np.zeros((batch, 24), dtype=np.float32)
        if self._info.train_type == "ks_mode":
            keys[:, self._key_of_class] = classes
        else:
            major_share = results[1]
            if major_share.shape != classes.shape or not ((major_share >= 0) & (major_share <= 1)).all():
                raise ModelError("the model's shares of major are not from 0 to 1")
            keys[:, self._key_of_class] = classes * major_share
            keys[:, [keys_of[1].index for keys_of in self._info.classes]] = classes * (1 - major_share)
        return WindowProbabilities(classes, keys)


@lru_cache(maxsize=4)
def default_model(device: Device = "auto") -> KeyModel:
    """The model that stone carries, loaded once a process."""
    return KeyModel(device=device)


def built_in_path() -> Path:
    """The file of the model that stone carries."""
    return Path(__file__).parent / DEFAULT_MODEL


def read_model(path: str | os.PathLike[str] | None) -> bytes:
    """The bytes of the model at ``path``, or of the one that stone carries; no more than ``MAX_MODEL_BYTES``.

    Raises:
        ModelError: the file is larger.
        OSError: it cannot be read.
    """
    if path is None:
        return built_in_path().read_bytes()
    with Path(path).open("rb") as file:
        content = file.read(MAX_MODEL_BYTES + 1)  # what its size is said to be may change, or be endless
    if len(content) > MAX_MODEL_BYTES:
        raise ModelError(f"not a key model: larger than {MAX_MODEL_BYTES >> 20} MB")
    return content


def describe_model(content: bytes, *, with_graph: bool = True) -> ModelInfo:
    """What a model says of itself, once its bytes are found fit to be loaded; nothing of it is run.

    ``with_graph=False`` is for the model that stone carries, whose graph the tests check.

    Raises:
        ModelError: it is no model of stone, or holds what none may hold.
    """
    text = check_onnx(content, with_graph=with_graph).get(METADATA_KEY)
    if text is None:
        raise ModelError("not a key model: it does not describe itself (make one with: stone export)")
    return parse_info(text)


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
    options.log_severity_level = _FATAL  # what fails, we say ourselves
    # A model may keep weights in other files, anywhere below the current folder or above it: not one of ours.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, not ORT's own format
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(MAX_CONSTANT))
    _limit_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        # Its own fallback from CUDA is told on standard output, where answers stand.
        return onnxruntime.InferenceSession(content, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # as above
        raise ModelError(f"not a model that can be loaded: {_one_line(error)}") from error


@lru_cache(maxsize=1)
def _limit_memory() -> None:
    """Let all models of this process share ``MAX_MEMORY``: a graph of a few hundred bytes can ask for any amount."""
    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_usual = dict.fromkeys(("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk"), -1)
    with suppress(Exception):  # another library of this process has set its own limits
        onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY} | as_usual))


def _why_no_cuda() -> str | None:
    """Why CUDA cannot be used, or None where a device and the runtime for it are there."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this build of onnxruntime has no CUDA"
    import ctypes  # a tenth of what this package's own modules take to load

    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
            return "no NVIDIA GPU answers"
    except (OSError, AttributeError):
        return "no NVIDIA driver is installed"
    return None


def _try_cuda(content: bytes, threads: int) -> onnxruntime.InferenceSession | None:
    """A session that does run on CUDA, or None, of which onnxruntime says nothing."""
    from contextlib import redirect_stdout
    from io import StringIO

    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        with redirect_stdout(StringIO()):  # where a driver is and the libraries are not, each is named there
            onnxruntime.preload_dlls()  # the CUDA and cuDNN that pip installed
            session = _new_session(content, threads, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    except Exception:  # whatever fails here, the CPU can do the work
        return None
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    return session if "CUDAExecutionProvider" in session.get_providers() else None


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


def _sha256_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
