from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
torch.set_num_threads(1)

from stonecli.cli.main import app  # noqa: E402
from stonecli.key import Key  # noqa: E402
from stonecli.model.session import KeyModel  # noqa: E402
from stonecli_export.pitch_fork import play_key  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, save_checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[3]


def hand_made() -> Checkpoint:
    """A network of one layer that matches each pitch class with two key profiles (see tests/export/conftest.py)."""
    config = ChromaNetConfig(out_channels=(2,), kernels=(23,), temperature=0.1)
    network = ChromaNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        down: Any = network.time_downsampling_blocks[0]
        block: Any = network.convnext_blocks[0]
        down.conv.weight.fill_(1.0)
        down.conv.bias.fill_(-2.0)
        for mode, degrees in enumerate(
            ((5, 0, 2.5, 0, 4, 3, 0, 4.5, 0, 3, 0, 2.5), (5, 0, 2.5, 4.2, 0, 3, 0, 4.5, 2.5, 0, 0.5, 2.5))
        ):
            profile = np.array(degrees) - np.mean(degrees)
            steps = [profile[step % 12] * (1 - abs(step) / 12) for step in range(-11, 12)]
            block.dwconv.weight[mode, 0, :, 11] = torch.tensor(steps) / np.linalg.norm(profile)
            block.pwconv1.weight[mode, mode], block.pwconv1.weight[mode + 2, mode] = 1, -1
            block.pwconv2.weight[mode, mode], block.pwconv2.weight[mode, mode + 2] = 1, -1
            network.classifier.weight[mode, mode] = 1
        block.gamma.fill_(3.0)
    return Checkpoint(config, network.state_dict(), window_seconds=8.0, trained_on="nothing", license="MIT")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hand made") / "hand [red].pt"
    save_checkpoint(hand_made(), path)
    return path


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def assert_fails(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("stone: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "unexpected" not in result.stderr
    for part in parts:
        assert part in result.stderr


def test_the_exported_file_is_described(checkpoint: Path, tmp_path: Path) -> None:
    model = tmp_path / "made [bold]" / "model.onnx"
    model.parent.mkdir()
    result = run(checkpoint, model)
    assert result.exit_code == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first == f"{model}: {model.stat().st_size / 1e6:.1f} MB, 24 classes"
    assert second == "class order found with synthetic chords: A major, Bb major, B major, ..."
    assert third.startswith("largest difference from PyTorch: ")
    assert float(third.split()[-1]) < 1e-4
    assert result.stderr == ""
    assert KeyModel(model, device="cpu").info.trained_on == "nothing"


def test_the_exported_model_is_checked_with_tones(checkpoint: Path, tmp_path: Path) -> None:
    model, fork = tmp_path / "model.onnx", tmp_path / "fork.wav"
    soundfile.write(fork, 0.5 * play_key(Key(0, "major"), 1, 10.0, 22050), 22050)
    assert run(checkpoint, model, "--pitch-fork", fork).exit_code == 0
    model.unlink()
    soundfile.write(fork, 0.5 * play_key(Key(5, "major"), 1, 10.0, 22050), 22050)
    assert_fails(run(checkpoint, model, "--pitch-fork", fork), 1, str(fork), "C major", "F major")
    assert_fails(run(checkpoint, model, "--pitch-fork", tmp_path / "none.wav"), 1, "none.wav", "no such file")
    assert not model.exists()


class TouchesFile:
    """Runs a command when it is unpickled with trust."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize(
    "content", [b"", b"these are no weights", b"PK\x03\x04" + bytes(50), b"\x80\x04\x95" + bytes(9)]
)
def test_a_bad_checkpoint_gives_one_line(tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(content)
    assert_fails(run(bad, tmp_path / "x.onnx"), 1, str(bad), "not a")
    assert [*tmp_path.iterdir()] == [bad]


def test_a_malicious_checkpoint_is_one_error_and_runs_no_code(tmp_path: Path) -> None:
    bad, marker = tmp_path / "bad.pt", tmp_path / "it ran"
    torch.save({"stone": TouchesFile(marker), "gin_info": []}, bad)
    assert_fails(run(bad, tmp_path / "x.onnx"), 1, str(bad), "contains code")
    assert [*tmp_path.iterdir()] == [bad]


def test_a_missing_checkpoint_gives_one_line(tmp_path: Path) -> None:
    assert_fails(run(tmp_path / "none.pt", tmp_path / "x.onnx"), 1, "none.pt", "no such file")
    assert_fails(run(tmp_path, tmp_path / "x.onnx"), 1, str(tmp_path), "directory")


def test_an_untrained_network_gives_one_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ChromaNetConfig(out_channels=(2,), kernels=(3,))
    save_checkpoint(Checkpoint(config, ChromaNet(config).state_dict(), window_seconds=2.0), tmp_path / "x.pt")
    assert_fails(run(tmp_path / "x.pt", tmp_path / "x.onnx"), 1, "x.pt", "does not distinguish keys")


def test_the_target_may_not_be_the_checkpoint(checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    assert_fails(run(checkpoint, checkpoint), 1, "would replace")
    assert checkpoint.read_bytes() == before


def test_a_forgotten_argument_is_wrong_usage(checkpoint: Path) -> None:
    assert run(checkpoint).exit_code == 2


WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = ["stone", "export", "x.pt", "y.onnx"]
from stonecli.cli.main import run
run()
"""


@pytest.mark.parametrize("module", ["torch", "onnx"])
def test_without_the_extra_the_error_tells_how_to_install_it(tmp_path: Path, module: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(module=module)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"stone: stone export needs {module}; install it: pip install 'stonecli[train]'\n"


def test_a_missing_folder_is_not_created(checkpoint: Path, tmp_path: Path) -> None:
    assert_fails(run(checkpoint, tmp_path / "none" / "x.onnx"), 2, f"{tmp_path / 'none'}: no such folder")
    assert not (tmp_path / "none").exists()


def test_music_is_never_replaced(checkpoint: Path, tmp_path: Path) -> None:
    song = tmp_path / "song.MP3"
    song.write_bytes(b"music")
    assert run(checkpoint, song).exit_code == 2
    assert song.read_bytes() == b"music"
