"""``stone analyze`` as a whole program: what it loads, its config file, devices, pipes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("unmeasured")

CALL = (
    "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    "from stonecli.cli.start import run; sys.argv[0] = 'stone'; run()"
)
NOT_NEEDED = {
    "rich", "mutagen", "sqlite3", "urllib.request", "matplotlib", "watchdog", "stonecli.tags",
    "stonecli.model.registry", "stonecli.cache", "stonecli.model.batching",
}  # fmt: skip


def start(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """``stone`` as it is installed, which says on standard error at the end what it has loaded."""
    return subprocess.run(
        [sys.executable, "-c", CALL, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONUTF8": "1"} | env,
    )  # fmt: skip


@pytest.fixture
def unconfigured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the config file, without one."""
    monkeypatch.setenv("STONE_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.mark.parametrize("options", [[], ["--json"], ["--per-window"]])
def test_only_needed_modules_are_imported(unconfigured: Path, songs: Mapping[str, Path], options: list[str]) -> None:
    result = start("analyze", "--device", "cpu", *options, songs["flac"])
    assert result.returncode == 0
    assert "Camelot" in result.stdout or '"camelot"' in result.stdout
    loaded = set(result.stderr.split())
    assert "stonecli.detection.detect" in loaded
    assert not NOT_NEEDED & loaded


def test_the_config_file_is_used(unconfigured: Path, songs: Mapping[str, Path]) -> None:
    unconfigured.mkdir()
    (unconfigured / "config.toml").write_text("[analyze]\nper-window = true\n")
    result = start("analyze", "--device", "cpu", songs["flac"])
    assert "window by window" in result.stdout
    (unconfigured / "config.toml").write_text("[analyze\n")
    result = start("analyze", "--device", "cpu", songs["flac"])
    assert result.returncode == 2
    assert "config.toml: not valid TOML" in result.stderr


def test_a_folder_instead_of_the_config_file(unconfigured: Path, songs: Mapping[str, Path]) -> None:
    (unconfigured / "config.toml").mkdir(parents=True)
    result = start("analyze", "--device", "cpu", songs["flac"])
    assert result.returncode == 2
    assert "config.toml: is not a regular file" in result.stderr


def test_a_shell_that_asks_gets_its_answer(unconfigured: Path) -> None:
    result = start("analyze", "a.mp3", _STONE_COMPLETE="complete_bash", COMP_WORDS="stone ana", COMP_CWORD="1")
    assert result.stdout.split() == ["analyze"]


def test_a_missing_device_is_wrong_usage(unconfigured: Path, songs: Mapping[str, Path]) -> None:
    from stonecli.model.session import _why_no_cuda

    if _why_no_cuda() is None:
        pytest.skip("there is a GPU")
    result = start("analyze", "--device", "cuda", songs["flac"])
    assert result.returncode == 2
    assert result.stderr.startswith("stone: CUDA is not available")


@pytest.mark.skipif(os.name == "nt", reason="pipes of another kind")
def test_a_reader_that_closes_the_pipe(unconfigured: Path, songs: Mapping[str, Path]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "stonecli", "analyze", "--device", "cpu", songs["flac"]],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")
