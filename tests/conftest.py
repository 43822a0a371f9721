"""Fixtures that several test files share: music in a known key, files in every container, the program, tiny models."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import settings
from typer.testing import CliRunner, Result

from stonecli.cli.main import app
from stonecli.detection.estimate import KeyEstimate, Window
from stonecli.detection.segments import Segment
from stonecli.key import Key
from stonecli.model.session import KeyModel
from tests.fixture_types import (
    CopySong,
    Encode,
    Fingerprint,
    Invoke,
    LimitFileSize,
    MakeEstimate,
    MakeModel,
    MakeMusic,
    MakeNoise,
    RunFfmpeg,
    RunStone,
    Samples,
    StartProcess,
)

# With this variable, which many containers set, each process that a test starts would compile stone again, and each
# worker of pytest-xdist all tests: about a fifth of the whole run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# There is one worker per core or more, so that further threads of PyTorch would mostly wait, and busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_MAJOR = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14), (0, 4, 7))
_MINOR = ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7), (8, 12, 15), (5, 8, 12), (7, 11, 14), (0, 3, 7))

_SOUNDFILE = {  # name: ending, format, subtype
    "wav 8 bit": ("wav", "WAV", "PCM_U8"),
    "wav 16 bit": ("wav", "WAV", "PCM_16"),
    "wav 24 bit": ("wav", "WAV", "PCM_24"),
    "wav float": ("wav", "WAV", "FLOAT"),
    "aiff": ("aiff", "AIFF", "PCM_16"),
    "flac": ("flac", "FLAC", "PCM_16"),
    "ogg vorbis": ("ogg", "OGG", "VORBIS"),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III"),
}
_FFMPEG = {  # name: ending, options
    "opus": ("opus", ["-c:a", "libopus"]),
    "m4a aac": ("m4a", ["-c:a", "aac"]),
    "m4a alac": ("m4a", ["-c:a", "alac"]),
    "wma": ("wma", ["-c:a", "wmav2"]),
    "wavpack": ("wv", ["-c:a", "wavpack"]),
}
CONTAINERS = (*_SOUNDFILE, *_FFMPEG)


settings.register_profile("stone", deadline=None)  # a busy machine is not an error
settings.load_profile("stone")


def pytest_configure(config: pytest.Config) -> None:
    """Gives what the tests start the usual signals, also in a job in the background (Ctrl-C ignored) or under nohup.

    A signal that is ignored stays ignored in every process that is started from here; one that has a handler does not.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    starts_workers = bool(config.getoption("numprocesses", None))  # of pytest-xdist, which are to outlive the terminal
    if sys.platform != "win32" and not starts_workers and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


SERVERS = {"serve", "s3", "server", "site", "host"}  # fixtures that start a web or S3 server


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that use a server with ``network``."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("network")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for ``any_container`` on every kind of file."""
    if "any_container" in metafunc.fixturenames:
        metafunc.parametrize("any_container", CONTAINERS)


_MARKER = "STONE_TEST"  # in the environment of every process that a test starts
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers whether a test failed, for ``_nothing_runs_after_a_failure``."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def _nothing_runs_after_a_failure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kills what a failed test started, on Linux: its processes and theirs, whichever parent they have by now."""
    mark = f"{os.getpid()} {request.node.nodeid}"
    monkeypatch.setenv(_MARKER, mark)
    yield
    if request.node.stash.get(_FAILED, False):
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile, or of another user
                is_marked = f"{_MARKER}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
                if is_marked and b"resource_tracker" not in (folder / "cmdline").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture
def start_process() -> Iterator[StartProcess]:
    """Starts a process with pipes for its output, in a new session that is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, **{**pipes, **options}, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if sys.platform == "win32":
            process.kill()
        else:
            with suppress(ProcessLookupError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass  # closes the pipes and waits


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started by the test do not load coverage.py, for tests that look at the loaded modules."""
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session")
def _folders_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new folder for each test. ``mktemp`` would list all earlier ones each time, which takes minutes in all."""
    base = tmp_path_factory.mktemp("own")
    return (base / str(number) for number in itertools.count())


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, _folders_of_tests: Iterator[Path]) -> Path:
    """A new folder, as pytest's own fixture makes it, without listing the folders of all earlier tests."""
    number = next(_folders_of_tests)
    folder = number.with_name(f"{re.sub(r'[^A-Za-z0-9]+', '_', request.node.name)[:25]}-{number.name}")
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def _own_folders(_folders_of_tests: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own undo journal, result cache, added models and config file."""
    folder = next(_folders_of_tests)
    for name in ("data", "config", "state", "cache"):
        (folder / name).mkdir(parents=True, mode=0o700)
        monkeypatch.setenv(f"STONE_{name.upper()}_DIR", str(folder / name))


@lru_cache(maxsize=64)
def _music(key: str, seconds: float, rate: int, cents: float) -> Samples:
    parsed = Key.parse(key)
    time = np.arange(rate) / rate
    envelope = np.minimum(1, time / 0.01) * np.exp(-1.5 * time) * np.minimum(1, (1 - time) / 0.02)
    chords = []
    for chord in _MAJOR if parsed.mode == "major" else _MINOR:
        sound = np.zeros(rate)
        for note in (chord[0] - 12, *chord):
            fundamental = 440.0 * 2 ** (cents / 1200 + (parsed.tonic + note - 9) / 12)
            for partial in range(1, 7):
                if partial * fundamental < 0.45 * rate:
                    sound += 0.6**partial * np.sin(2 * np.pi * partial * fundamental * time + partial)
        chords.append(sound * envelope)
    whole = np.concatenate([chords[beat % len(chords)] for beat in range(int(np.ceil(seconds)))])
    samples = (0.5 * whole / np.abs(whole).max())[: round(seconds * rate)].astype(np.float32)
    samples.flags.writeable = False  # it is cached
    return samples


@pytest.fixture(scope="session")
def music() -> MakeMusic:
    """A chord progression in a key, a chord a second: ``music("F# minor", seconds=16, rate=22050, cents=0)``."""

    def render(key: str = "C major", *, seconds: float = 16.0, rate: int = 22050, cents: float = 0.0) -> Samples:
        return _music(key, seconds, rate, cents)

    return render


@pytest.fixture(scope="session")
def noise() -> MakeNoise:
    """Noise whose power falls with frequency: ``noise(0)`` white, 1 pink, 2 brown."""

    def make(exponent: float, seconds: float = 16.0, rate: int = 22050) -> Samples:
        white = np.random.default_rng(7).standard_normal(round(seconds * rate))
        spectrum = np.fft.rfft(white)
        spectrum[1:] *= np.arange(1, len(spectrum)) ** (-exponent / 2)
        colored = np.fft.irfft(spectrum, len(white))
        return (0.5 * colored / np.abs(colored).max()).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def ffmpeg() -> RunFfmpeg:
    """Runs ffmpeg; the test fails where it fails."""

    def run(*arguments: str | Path, stdin: bytes | None = None) -> None:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
        subprocess.run(command, input=stdin, check=True, capture_output=True)

    return run


@pytest.fixture(scope="session")
def encode(ffmpeg: RunFfmpeg) -> Encode:
    """Writes samples into a file of the given kind; the ending follows the kind unless the name has a dot."""

    def write(samples: Samples, rate: int, container: str, path: Path) -> Path:
        ending = (_SOUNDFILE.get(container) or _FFMPEG[container])[0]
        path = path if path.suffix else path.with_suffix(f".{ending}")
        if container in _SOUNDFILE:
            _, kind, subtype = _SOUNDFILE[container]
            soundfile.write(path, samples, rate, format=kind, subtype=subtype)
        else:
            channels = "1" if samples.ndim == 1 else str(samples.shape[1])
            raw = ["-f", "f32le", "-ar", str(rate), "-ac", channels, "-i", "pipe:0"]
            ffmpeg(*raw, *_FFMPEG[container][1], path, stdin=samples.astype("<f4").tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory, music: MakeMusic, encode: Encode) -> Mapping[str, Path]:
    """16 s in D minor at 44.1 kHz in every container, by name; not to be changed."""
    folder = tmp_path_factory.mktemp("songs")
    samples = music("D minor", rate=44100)
    return {name: encode(samples, 44100, name, folder / name.replace(" ", "-")) for name in CONTAINERS}


@pytest.fixture
def song(songs: Mapping[str, Path], tmp_path: Path) -> CopySong:
    """A copy of a song: ``song("mp3")``, ``song("mp3", "other name")``; the ending is added."""

    def copy(container: str, name: str | None = None, *, head: float = 1.0) -> Path:
        content = songs[container].read_bytes()
        path = tmp_path / "music" / f"{name or container}{songs[container].suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content[: int(len(content) * head)])
        return path

    return copy


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings that are not in the repository; skips the test without it."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "audio" / "labels.csv").is_file():
        pytest.skip("needs ../shared")
    return folder


@pytest.fixture(scope="session")
def key_model() -> KeyModel:
    """The built-in model on the CPU."""
    return KeyModel(device="cpu")


@pytest.fixture(scope="session")
def estimate_of() -> MakeEstimate:
    """An estimate as if from the model: ``estimate_of("Am", changes_to="C")``, ``estimate_of(None)`` for noise."""

    def make(key: str | None = "Am", *, confidence: float = 0.8, changes_to: str | None = None) -> KeyEstimate:
        uniform = np.full(24, 1 / 24, dtype=np.float32)
        if key is None:
            window = Window(0.0, 15.0, False, uniform, uniform)
            return KeyEstimate(None, 0.0, uniform, (window,), (), None, 20.0)
        keys = [Key.parse(key), Key.parse(changes_to or key)]
        rows = np.full((2, 24), (1 - confidence) / 23, dtype=np.float32)
        rows[np.arange(2), [key.index for key in keys]] = confidence
        windows = tuple(Window(15.0 * i, 15.0 * (i + 1), True, row, row[::-1]) for i, row in enumerate(rows))
        segments = tuple(Segment(15.0 * i, 15.0 * (i + 1), key, confidence) for i, key in enumerate(keys))
        if keys[0] == keys[1]:
            segments = (Segment(0.0, 30.0, keys[0], confidence),)
        return KeyEstimate(keys[0], confidence, rows[0], windows, segments, -12.34, 3725.6789)

    return make


@pytest.fixture(scope="session")
def fingerprint() -> Fingerprint:
    """Names, modes, modification times and content of all files in a folder."""

    def of(folder: Path) -> dict[str, tuple[int, int, str]]:
        found = {}
        for path in (folder, *sorted(folder.rglob("*"))):
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[os.fspath(path)] = (status.st_mode, status.st_mtime_ns, content)
        return found

    return of


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Runs ``stone`` in this process."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


STONE = [sys.executable, "-c", "from stonecli.cli.main import run; run()"]


@pytest.fixture(scope="session")
def stone_command() -> list[str]:
    """The command that starts ``stone`` as a process."""
    return list(STONE)


@pytest.fixture(scope="session")
def stone() -> RunStone:
    """Runs ``stone`` as a process to its end; with ``weak=True``, file permissions apply even to root."""

    def run(
        *arguments: str | bytes | Path, weak: bool = False, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*STONE, *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=120,
            cwd=cwd,
            env={**os.environ, **env},
            preexec_fn=_drop_powers if weak else None,
            check=False,
        )

    return run


def _drop_powers() -> None:
    """Make permissions count for root as well, from the next exec on."""
    if os.geteuid() == 0:
        drop_capability = 24
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if ctypes.CDLL(None).prctl(drop_capability, capability, 0, 0, 0):
                raise OSError("prctl")


@pytest.fixture(scope="session")
def tiny_model() -> MakeModel:
    """Writes a model with the same output for every input: ``tiny_model(path, count=12, **changed_metadata)``."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT

    def build(
        path: Path,
        *,
        count: int = 24,
        logits: Samples | None = None,
        metadata: str | None = None,
        without: str | None = None,
        softmax: bool = True,
        major_share: float = 0.25,
        rank: int = 2,
        input_name: str = "audio",
        external: str | None = None,
        **changes: Any,
    ) -> Path:
        values = np.linspace(0, 3, count, dtype=np.float32)[None] if logits is None else logits
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32), "logits")
        if external:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for name, value in (("location", external), ("length", str(values.nbytes))):
                entry = tensor.external_data.add()
                entry.key, entry.value = name, value
        constants = {"axis": np.array([1]), "zero": np.float32(0), "share": np.full((1, count), major_share, "f4")}
        outputs = ("probabilities", "major_share")
        nodes = [
            helper.make_node("ReduceMean", [input_name, "axis"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "logits"], ["scores"]),
            helper.make_node("Softmax" if softmax else "Identity", ["scores"], ["probabilities"]),
            helper.make_node("Add", ["nothing", "share"], ["major_share"]),
        ]
        shape: list[Any] = ["batch", "samples", 1][:rank] if rank <= 2 else ["batch", "samples", 1]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(input_name, floats, shape)],
            [helper.make_tensor_value_info(name, floats, ["batch", count]) for name in outputs],
            [tensor, *(onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        names = [key.name for key in Key.all()]
        if count == 12:
            names = [f"{key.name}/{key.relative.name}" for key in Key.all() if key.mode == "major"]
        description = {
            "format_version": 1,
            "train_type": "ks" if count == 12 else "ks_mode",
            "classes": names,
            "corrects_tuning": False,
            "frames_averaged": 1,
            "sample_rate": 22050,
            "window_seconds": 15.0,
            "minimum_samples": 1000,
            "circle_type": None,
            "temperature": 1.0,
            "licence": "MIT",
            "trained_on": "nothing",
            "checkpoint_sha256": "0" * 64,
        } | changes
        if without:
            del description[without]
        if metadata != "":
            helper.set_model_props(model, {"stone": json.dumps(description) if metadata is None else metadata})
        path.write_bytes(model.SerializeToString())
        return path

    return build


@pytest.fixture
def no_room() -> LimitFileSize:
    """A context manager in which no file grows beyond a number of bytes, by default a kilobyte, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int = 1 << 10) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        sys.dont_write_bytecode = True  # Python would cut its .pyc files, and could not read them the next time
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            sys.dont_write_bytecode = False

    return limited
