import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stonecli.cli import analyze as analyze_command
from stonecli.cli import plain
from stonecli.cli.analyze_files import analyze_files
from stonecli.cli.app import make_app

Stone = Callable[..., subprocess.CompletedProcess[str]]

CALL = (
    "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    "from stonecli.cli.start import run; sys.argv[0] = 'stone'; run()"
)
NOT_NEEDED = {
    "typer", "click", "pydantic", "rich", "mutagen", "sqlite3", "tomllib", "urllib.request", "concurrent.futures",
    "importlib.metadata", "importlib.resources", "matplotlib", "watchdog", "stonecli.tags", "stonecli.jobs",
    "stonecli.model.registry", "stonecli.remote.locations", "stonecli.library.cache", "stonecli.model.batching",
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


def by_typer(arguments: list[str]) -> dict[str, Any] | None:
    """What Typer would call ``analyze_files`` with; None where it would not."""
    calls: list[dict[str, Any]] = []

    def note(*args: Any, **kwargs: Any) -> int:
        calls.append(bound(*args, **kwargs))
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyze_command, "analyze_files", note)
        CliRunner().invoke(make_app(["analyze"]), ["analyze", *arguments])
    return calls[0] if calls else None


def bound(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """All arguments of a call of ``analyze_files``, with what it takes where nothing is given."""
    call = inspect.signature(analyze_files).bind(*args, **kwargs)
    call.apply_defaults()
    return dict(call.arguments)


words = st.one_of(
    st.sampled_from(["--json", "--per-window", "--device", "cpu", "auto", "cuda", "CPU", "a.mp3", "-", "--", "-h", ""]),
    st.sampled_from(["--help", "--null", "-0", "--device=cpu", "--js", "--window", "3", "--overlap", "0.5", "--html"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
)


@given(st.lists(words, max_size=6))
def test_what_is_read_is_what_typer_reads(unconfigured_once: None, arguments: list[str]) -> None:
    found = plain.plain_arguments(arguments)
    if found is not None:
        assert bound(**found) == by_typer(arguments)


@pytest.fixture(scope="module")
def unconfigured_once(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STONE_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.mark.parametrize(
    "line",
    ["a.mp3", "a.mp3 b.flac", "--json a.mp3", "a.mp3 --per-window --json b.wav", "--device cpu a.mp3 --device auto"],
)
def test_plain_lines(unconfigured: Path, line: str) -> None:
    found = plain.plain_arguments(line.split())
    assert found is not None
    assert bound(**found) == by_typer(line.split())


@pytest.mark.parametrize("line", ["", "-", "--", "-h a.mp3", "--device", "--device tpu a.mp3", "--json", "a.mp3 -x"])
def test_the_rest_is_for_typer(line: str) -> None:
    assert plain.plain_arguments(line.split()) is None
    assert plain.plain_arguments([""]) is None


def test_windows_patterns_are_for_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain.os, "name", "nt")
    assert plain.plain_arguments(["*.mp3"]) is None
    assert plain.plain_arguments(["--json", "~/a.mp3"]) is None


@pytest.mark.parametrize("options", [[], ["--json"], ["--per-window"]])
def test_it_loads_nothing_that_it_does_not_need(
    unconfigured: Path, songs: Mapping[str, Path], options: list[str]
) -> None:
    result = start("analyze", "--device", "cpu", *options, songs["flac"])
    assert result.returncode == 0
    assert "Camelot" in result.stdout or '"camelot"' in result.stdout
    loaded = set(result.stderr.split())
    assert "stonecli.detection.detect" in loaded
    assert not NOT_NEEDED & loaded
    assert ("hashlib" in loaded) == ("--json" in options)  # which names the model by its hash


def test_it_says_what_the_command_says(unconfigured: Path, songs: Mapping[str, Path], stone: Stone) -> None:
    files = [songs["flac"], songs["flac"].parent / "none.mp3", songs["mp3"]]
    for options in ([], ["--json"], ["--per-window"]):
        plainly = start("analyze", "--device", "cpu", *options, *files)
        through_typer = stone("analyze", "--device", "cpu", *options, *files)
        assert plainly.stdout == through_typer.stdout
        assert plainly.returncode == through_typer.returncode == 1
        assert plainly.stderr.splitlines()[0] == through_typer.stderr.strip()
        assert "none.mp3: No such file or directory" in plainly.stderr


def test_a_config_file_is_heeded(unconfigured: Path, songs: Mapping[str, Path]) -> None:
    unconfigured.mkdir()
    (unconfigured / "config.toml").write_text("[analyze]\nper-window = true\n")
    result = start("analyze", "--device", "cpu", songs["flac"])
    assert "window by window" in result.stdout
    assert "typer" in result.stderr.split()
    (unconfigured / "config.toml").write_text("[analyze\n")
    result = start("analyze", "--device", "cpu", songs["flac"])
    assert result.returncode == 2
    assert "config.toml: not valid TOML" in result.stderr


def test_a_folder_in_the_place_of_the_config_file(unconfigured: Path, songs: Mapping[str, Path]) -> None:
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
def test_a_reader_that_goes_away(unconfigured: Path, songs: Mapping[str, Path]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "stonecli", "analyze", "--device", "cpu", songs["flac"]],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")
