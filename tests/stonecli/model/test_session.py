import ctypes
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stonecli.errors import DeviceError, ModelError
from stonecli.key import Key
from stonecli.model import session as model
from stonecli.model.guard import check_onnx
from stonecli.model.metadata import parse_info
from stonecli.model.runtime import onnxruntime
from stonecli.model.session import KeyModel, default_model
from tests.fixture_types import MakeMusic, Samples

Build = Callable[..., Path]

NAMES = [key.name for key in Key.all()]
SIGNATURES = [f"{key.name}/{key.relative.name}" for key in Key.all() if key.mode == "major"]


def test_the_built_in_model_describes_itself(key_model: KeyModel) -> None:
    info = key_model.info
    assert info.train_type == "ks_mode"
    assert sorted(key.index for (key,) in info.classes) == list(range(24))
    assert info.sample_rate == 11025
    assert info.window_seconds == 15.0
    assert info.window_samples == 15 * 11025
    assert 0 < info.minimum_samples <= info.window_samples
    assert info.licence
    assert info.trained_on
    assert len(info.checkpoint_sha256) == 64
    assert key_model.device == "cpu"
    assert len(key_model.sha256) == 64


def test_probabilities_follow_the_order_of_keys(key_model: KeyModel, music: MakeMusic) -> None:
    audio = np.stack([music("E minor", seconds=15), music("Ab major", seconds=15)])
    answer = key_model(audio)
    assert answer.classes.shape == answer.keys.shape == (2, 24)
    assert answer.keys.dtype == np.float32
    assert answer.keys.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert [Key.from_index(int(row.argmax())).name for row in answer.keys] == ["E minor", "Ab major"]
    for index, (key,) in enumerate(key_model.info.classes):
        assert (answer.keys[:, key.index] == answer.classes[:, index]).all()


def test_a_batch_equals_its_single_windows(key_model: KeyModel, music: MakeMusic) -> None:
    windows = [music(key, seconds=15) for key in ("C major", "A minor", "F# minor")]
    together = key_model(np.stack(windows)).keys
    for window, row in zip(windows, together, strict=True):
        assert np.allclose(key_model(window[None]).keys[0], row, atol=1e-5)


def test_the_level_is_immaterial(key_model: KeyModel, music: MakeMusic) -> None:
    """stone divides by the peak; a recording whose peak comes late must get the same answer."""
    window = music("B minor", seconds=15)[None]
    answer = key_model(window).keys
    for gain in (2.0, 0.1, 1e-3):
        assert np.abs(key_model(window * np.float32(gain)).keys - answer).max() < 1e-3


def test_many_threads_get_the_same_answers(key_model: KeyModel, music: MakeMusic) -> None:
    windows = [music(key.name, seconds=12)[None] for key in list(Key.all())[::3]]
    alone = [key_model(window).keys for window in windows]
    with ThreadPoolExecutor(8) as executor:
        for _ in range(2):
            for one, other in zip(alone, executor.map(lambda window: key_model(window).keys, windows), strict=True):
                assert (one == other).all()


def test_a_model_travels_by_its_path(key_model: KeyModel, tiny_model: Build, tmp_path: Path) -> None:
    audio = np.zeros((1, 12 * 22050), dtype=np.float32)
    for original in (key_model, KeyModel(tiny_model(tmp_path / "tiny.onnx"), "cpu")):
        copy = pickle.loads(pickle.dumps(original))
        assert (copy.name, copy.sha256, copy.info, copy.device) == (
            original.name,
            original.sha256,
            original.info,
            original.device,
        )
        assert (copy(audio).keys == original(audio).keys).all()


def test_the_default_model_is_loaded_once() -> None:
    assert default_model("cpu") is default_model("cpu")


def test_audio_that_is_too_short_is_an_error_of_ours(key_model: KeyModel) -> None:
    with pytest.raises(ModelError, match="the model failed: ") as caught:
        key_model(np.zeros((1, 10), dtype=np.float32))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


# Files that are no models


@pytest.mark.parametrize("content", [b"", b"not a model\n", b"\x08\x0a" + bytes(1000), b"\x80\x04."])
def test_a_file_that_is_not_an_onnx_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"not an? (valid |key |ONNX )?model") as caught:
        KeyModel(tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)


def test_a_truncated_model(tmp_path: Path) -> None:
    whole = (Path(model.__file__).parent / model.DEFAULT_MODEL).read_bytes()
    (tmp_path / "x.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError):
        KeyModel(tmp_path / "x.onnx")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeyModel(tmp_path / "nothing.onnx")
    with pytest.raises(IsADirectoryError):
        KeyModel(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.onnx").open("wb") as file:
        file.truncate(8 << 30)  # takes no room on the disk; in memory it would
    with pytest.raises(ModelError, match="larger than 64 MB"):
        KeyModel(tmp_path / "x.onnx")


def test_a_model_without_metadata(tiny_model: Build, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no stone metadata"):
        KeyModel(tiny_model(tmp_path / "x.onnx", metadata=""))


@pytest.mark.parametrize(
    "metadata",
    ["{", "[]", "5", '"text"', "null", "{}", '{"format_version": 1}', "[" * 20000, "\x00", "NaN", "ключ"],
    ids=range(11),
)
def test_a_damaged_description(tiny_model: Build, tmp_path: Path, metadata: str) -> None:
    with pytest.raises(ModelError, match="damaged") as caught:
        KeyModel(tiny_model(tmp_path / "x.onnx", metadata=metadata))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 2}, "unsupported model format 2"),
        ({"format_version": "\x1b[31m"}, r"unsupported model format '\\x1b\[31m'"),
        ({"train_type": "ks"}, "classes"),
        ({"train_type": "chords"}, "classes"),
        ({"train_type": ["ks_mode"]}, "classes"),
        ({"train_type": None}, "classes"),
        ({"classes": NAMES[:23]}, "classes"),
        ({"classes": [*NAMES, "C major"]}, "classes"),
        ({"classes": [*NAMES[:23], "C major"]}, "classes"),
        ({"classes": SIGNATURES}, "classes"),
        ({"classes": []}, "classes"),
        ({"classes": [*NAMES[:23], "H minor"]}, "damaged: not a key"),
        ({"classes": [*NAMES[:23], 5]}, "damaged"),
        ({"classes": 24}, "damaged"),
        ({"sample_rate": 0}, "invalid window"),
        ({"sample_rate": 10**9}, "invalid window"),
        ({"sample_rate": float("inf")}, "damaged"),
        ({"sample_rate": float("nan")}, "damaged"),
        ({"sample_rate": "fast"}, "damaged"),
        ({"window_seconds": -1}, "invalid window"),
        ({"window_seconds": float("nan")}, "damaged: NaN is not a number"),
        ({"window_seconds": 1e9}, "invalid window"),
        ({"window_seconds": None}, "damaged"),
        ({"minimum_samples": 0}, "invalid minimum"),
        ({"minimum_samples": 10**12}, "invalid minimum"),
        ({"minimum_samples": float("inf")}, "damaged"),
        ({"context_samples": -1}, "invalid context"),
        ({"context_samples": 500}, "invalid context: 500 samples of 1000"),
        ({"context_samples": None}, "damaged"),
        ({"temperature": [1]}, "damaged"),
        ({"temperature": float("nan")}, "damaged: NaN is not a number"),
        ({"temperature": 0}, "invalid temperature"),
        ({"least_confidence": float("-inf")}, "damaged: -Infinity is not a number"),
        ({"sharpness": 0}, "invalid exponent"),
        ({"sharpness_per_doubling": -0.1}, "invalid exponent"),
        ({"major_odds": 0.0}, "invalid prior odds of major"),
        ({"major_odds": 101}, "invalid prior odds of major"),
        ({"sharpness_per_doubling": float("inf")}, "damaged: Infinity is not a number"),
        ({"circle_type": 5}, "invalid circle type"),
        ({"circle_type": True}, "invalid circle type"),
        ({"circle_type": "\x1b[31m"}, "invalid circle type"),
        ({"frames_averaged": 0}, "invalid number of frames"),
        ({"corrects_tuning": "no"}, "damaged: corrects_tuning is not of type bool"),
        ({"licence": ["MIT"]}, "damaged: licence is not of type str"),
        ({"trained_on": "much " * 20_000}, "damaged: too long"),
        ({"classes": ["\x1b[31m\n"] * 24}, "damaged: not a key"),
    ],
    ids=str,
)
def test_invalid_metadata_is_refused(tiny_model: Build, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        KeyModel(tiny_model(tmp_path / "x.onnx", **changes))


def test_a_number_that_is_infinite_without_saying_so(tiny_model: Build, tmp_path: Path) -> None:
    text = check_onnx(tiny_model(tmp_path / "x.onnx").read_bytes())["stone"]
    with pytest.raises(ModelError, match="damaged: inf is not a finite number"):
        parse_info(text.replace('"temperature": 1.0', '"temperature": 1e999'))


@pytest.mark.parametrize("missing", ["train_type", "classes", "sample_rate", "window_seconds", "minimum_samples"])
def test_a_description_that_lacks_something(tiny_model: Build, tmp_path: Path, missing: str) -> None:
    with pytest.raises(ModelError, match=f"damaged: '{missing}'"):
        KeyModel(tiny_model(tmp_path / "x.onnx", without=missing))


def test_a_pair_of_keys_that_do_not_share_a_signature(tiny_model: Build, tmp_path: Path) -> None:
    pairs = ["C major/E minor", *(pair.replace("E minor", "A minor") for pair in SIGNATURES[1:])]
    with pytest.raises(ModelError, match="relative minor"):
        KeyModel(tiny_model(tmp_path / "x.onnx", count=12, classes=pairs))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ({"rank": 3}, "'audio' is not a float32 matrix"),
        ({"rank": 1}, "'audio' is not a float32 matrix|not a model that can be loaded"),
        ({"input_name": "sound"}, "inputs and outputs"),
        (
            {"count": 12, "train_type": "ks_mode", "classes": NAMES},
            "number of model outputs",
        ),
        ({"train_type": "ks", "classes": SIGNATURES}, "number of model outputs"),
    ],
    ids=["rank 3", "rank 1", "name", "12 of 24", "24 of 12"],
)
def test_a_graph_that_contradicts_its_metadata(
    tiny_model: Build, tmp_path: Path, graph: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        KeyModel(tiny_model(tmp_path / "x.onnx", **graph))


@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "../{folder}/weights.bin", "{path}/weights.bin"])
def test_a_model_cannot_read_other_files(
    tiny_model: Build, key_model: KeyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.arange(24, dtype=np.float32).tobytes())
    external = location.format(folder=tmp_path.name, path=tmp_path)
    with pytest.raises(ModelError, match="has weights in other files"):
        KeyModel(tiny_model(tmp_path / "x.onnx", external=external))
    monkeypatch.setattr(model, "describe_model", lambda *_, **__: key_model.info)  # and if it had not been seen:
    with pytest.raises(ModelError, match="not a model that can be loaded"):
        KeyModel(tmp_path / "x.onnx")


@pytest.mark.parametrize("logits", [np.linspace(-3, 3, 24), np.full(24, np.nan), np.full(24, 0.5)])
def test_outputs_that_are_not_probabilities(tiny_model: Build, tmp_path: Path, logits: Samples) -> None:
    loaded = KeyModel(tiny_model(tmp_path / "x.onnx", logits=logits[None], softmax=False), "cpu")
    with pytest.raises(ModelError, match="not a probability distribution"):
        loaded(np.zeros((1, 2000), dtype=np.float32))


# Twelve classes


@pytest.mark.parametrize("major_share", [0.0, 0.25, 0.9])
def test_twelve_signatures_make_24_probabilities(tiny_model: Build, tmp_path: Path, major_share: float) -> None:
    loaded = KeyModel(tiny_model(tmp_path / "x.onnx", count=12, major_share=major_share), "cpu")
    assert loaded.info.train_type == "ks"
    answer = loaded(np.zeros((3, 2000), dtype=np.float32))
    assert answer.classes.shape == (3, 12)
    assert answer.keys.shape == (3, 24)
    assert answer.keys.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for index, (major, minor) in enumerate(loaded.info.classes):
        assert major.relative == minor
        assert answer.keys[:, major.index] == pytest.approx(answer.classes[:, index] * major_share, abs=1e-6)
        assert answer.keys[:, minor.index] == pytest.approx(answer.classes[:, index] * (1 - major_share), abs=1e-6)


def test_shares_outside_0_to_1_are_refused(tiny_model: Build, tmp_path: Path) -> None:
    loaded = KeyModel(tiny_model(tmp_path / "x.onnx", count=12, major_share=1.5), "cpu")
    with pytest.raises(ModelError, match="shares of major"):
        loaded(np.zeros((1, 2000), dtype=np.float32))


# Devices


class Driver:
    """An NVIDIA driver that finds ``gpus`` GPUs."""

    def __init__(self, gpus: int = 1, code: int = 0) -> None:
        self._gpus, self._code = gpus, code

    def cuInit(self, flags: int) -> int:
        return self._code

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self._gpus
        return 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Simulates a machine; returns the providers that sessions requested."""

    def pretend(*, build: bool = True, driver: Driver | None = None, loads: str = "yes") -> list[list[str]]:
        asked: list[list[str]] = []
        real = onnxruntime.InferenceSession

        class Session:
            def __init__(self, content: bytes, options: Any, providers: list[str], enable_fallback: int) -> None:
                asked.append(providers)
                self._on_cuda = providers[0] == "CUDAExecutionProvider" and loads == "yes"
                if providers[0] == "CUDAExecutionProvider" and loads == "raises":
                    raise RuntimeError("libcudnn.so.9: cannot open shared object file")
                self._session = real(content, options, providers=["CPUExecutionProvider"])

            def get_providers(self) -> list[str]:
                return ["CUDAExecutionProvider"] * self._on_cuda + ["CPUExecutionProvider"]

            def __getattr__(self, name: str) -> Any:
                return getattr(self._session, name)

        def load(name: str) -> Driver:
            if driver is None:
                raise OSError(f"{name}: cannot open shared object file")
            return driver

        names = ["CUDAExecutionProvider"] * build + ["CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(ctypes, "CDLL", load)
        return asked

    return pretend


BAD_MACHINES: dict[str, tuple[dict[str, Any], str]] = {
    "no CUDA in this build": ({"build": False, "driver": Driver()}, "onnxruntime-gpu is missing; install it"),
    "no driver": ({}, "no NVIDIA driver is installed"),
    "driver fails": ({"driver": Driver(code=999)}, "no NVIDIA GPU found"),
    "no GPU": ({"driver": Driver(gpus=0)}, "no NVIDIA GPU found"),
    "libraries missing": ({"driver": Driver(), "loads": "raises"}, "pip install 'stonecli"),
    "onnxruntime falls back": ({"driver": Driver(), "loads": "no"}, "pip install 'stonecli"),
}


@pytest.mark.parametrize("name", BAD_MACHINES)
def test_without_cuda_auto_runs_on_the_cpu_silently(
    machine: Callable[..., list[list[str]]], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    asked = machine(**BAD_MACHINES[name][0])
    loaded = KeyModel()
    assert loaded.device == "cpu"
    assert asked[-1] == ["CPUExecutionProvider"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="a build without CUDA")
def test_a_driver_without_libraries_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("a machine with a GPU")
    real = ctypes.CDLL
    driver = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name, *rest: driver if "cuda.so.1" in name else real(name, *rest))
    assert KeyModel().device == "cpu"
    assert capfd.readouterr() == ("", "")


def test_the_telemetry_of_onnxruntime_is_off(tmp_path: Path) -> None:
    """It would queue them below the user's cache folder, and send them."""
    call = "from stonecli import KeyModel; KeyModel(device='cpu')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", call], env=environment, check=True, timeout=60)
    assert [*tmp_path.rglob("*")] == []


@pytest.mark.parametrize("name", BAD_MACHINES)
def test_without_cuda_insisting_on_it_is_an_error(machine: Callable[..., list[list[str]]], name: str) -> None:
    machine(**BAD_MACHINES[name][0])
    with pytest.raises(DeviceError, match="CUDA is not available") as caught:
        KeyModel(device="cuda")
    assert BAD_MACHINES[name][1] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_where_cuda_works_it_comes_first(machine: Callable[..., list[list[str]]], device: model.Device) -> None:
    asked = machine(driver=Driver())
    assert KeyModel(device=device).device == "cuda"
    assert asked == [["CUDAExecutionProvider", "CPUExecutionProvider"]]


def test_device_cpu_never_tries_cuda(machine: Callable[..., list[list[str]]]) -> None:
    asked = machine(driver=Driver())
    assert KeyModel(device="cpu").device == "cpu"
    assert asked == [["CPUExecutionProvider"]]


def test_another_device_is_an_error() -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        KeyModel(device="tpu")  # type: ignore[arg-type]
