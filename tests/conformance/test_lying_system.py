"""Real processes on a system that lies: a rename that is done and reported to fail, Ctrl-C just after it, shares where
owner, permissions and times cannot be set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.key import Key
from stonecli.tags import read_tags, recorded, write_key
from tests.fixture_types import CopySong, MakeModel

Process = subprocess.CompletedProcess[str]
Stone = Callable[..., Process]
COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs LD_PRELOAD"),
]

API = """
import sys
from stonecli.key import Key
from stonecli.tags import recorded, write_key
with recorded() as run:
    write_key(sys.argv[1], Key.parse("8A"), journal=run)
"""
BEETS = """
import os, sys
from beets.library import Item, Library
from stonecli.integrations.beets import StonePlugin
plugin = StonePlugin()
plugin.config["model"] = sys.argv[2]
(command,) = plugin.commands()
library = Library(sys.argv[2] + ".db")
library.add(Item(path=os.fsencode(sys.argv[1]), title="song"))
command.func(library, command.parser.parse_args(["-w", "-q"])[0], [])
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("lies") / "lies.so"
    source = Path(__file__).with_name("lying_system.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True, timeout=60)
    return built


@pytest.fixture
def quick_model(tiny_model: MakeModel, tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture
def lying_stone(stone: Stone, library: Path) -> Stone:
    """``stone`` on a system that tells the lies given first."""
    return lambda lies, *arguments: stone(*arguments, LD_PRELOAD=str(library), STONE_TEST_LIES=lies)


@pytest.fixture
def lying_python(library: Path) -> Callable[..., Process]:
    """Runs a script on a system that tells the lies given first."""

    def run(lies: str, script: str, *arguments: Path) -> Process:
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "LD_PRELOAD": str(library), "STONE_TEST_LIES": lies},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def undo_restores(stone: Stone, path: Path, content: bytes) -> None:
    assert path.read_bytes() != content  # it was changed
    listed = stone("undo", "--list").stdout.splitlines()
    assert [line.split("\t")[3:5] for line in listed[1:]] == [["1", "0"]]
    assert stone("undo").returncode == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize("arguments", [["tag"], ["tag", "--jobs", "1"], ["watch"]], ids=" ".join)
def test_a_rename_that_succeeds_but_reports_an_error(
    arguments: list[str], lying_stone: Stone, stone: Stone, song: CopySong, quick_model: Path
) -> None:
    path = song("flac")
    content = path.read_bytes()
    lies = "rename-fails"
    targets: list[str | Path] = [path]
    if arguments == ["watch"]:
        lies, targets = "rename-fails interrupt", [path.parent, "--existing", "--settle", "0.5"]
    result = lying_stone(lies, *arguments, *targets, "--write-tags", "--model", quick_model)
    assert result.returncode == 0, result.stderr
    assert "written" in result.stdout
    undo_restores(stone, path, content)


def test_an_undo_whose_rename_reports_an_error(lying_stone: Stone, stone: Stone, song: CopySong) -> None:
    path = song("mp3")
    content = path.read_bytes()
    with recorded() as run:
        write_key(path, Key.parse("8A"), journal=run)
    result = lying_stone("rename-fails", "undo")
    assert (result.returncode, result.stdout) == (0, f"{path}\trestored\n")
    assert path.read_bytes() == content
    assert stone("undo").stderr == "stone: nothing to undo\n"


@pytest.mark.parametrize("entrance", ["python", "beets", "watch"])
def test_ctrl_c_just_after_the_rename(
    entrance: str,
    lying_python: Callable[..., Process],
    lying_stone: Stone,
    stone: Stone,
    song: CopySong,
    quick_model: Path,
) -> None:
    path = song("flac")
    content = path.read_bytes()
    if entrance == "watch":  # where the first Ctrl-C waits for the file in hand, and the second does not
        options = ["--existing", "--settle", "0.5", "--write-tags", "--model", quick_model]
        result = lying_stone("twice interrupt", "watch", path.parent, *options)
        assert (result.returncode, result.stderr.splitlines()[-1]) == (130, "stone: interrupted")
    else:
        if entrance == "beets":
            pytest.importorskip("beets")
        result = lying_python("interrupt", API if entrance == "python" else BEETS, path, quick_model)
        assert result.returncode != 0
        assert result.stderr.splitlines()[-1] == "KeyboardInterrupt"
    undo_restores(stone, path, content)


def test_ctrl_c_just_after_the_rename_of_an_undo(lying_stone: Stone, stone: Stone, song: CopySong) -> None:
    paths = [song("flac", "1"), song("flac", "2")]
    contents = [path.read_bytes() for path in paths]
    with recorded() as run:
        for path in paths:
            write_key(path, Key.parse("8A"), journal=run)
    result = lying_stone("interrupt", "undo")
    assert result.returncode == 130
    assert result.stderr.splitlines()[-1] == "stone: interrupted; to undo the rest: stone undo 1"
    assert result.stdout.splitlines() == [f"{paths[1]}\trestored"]  # it finishes the file that it has begun
    assert [path.read_bytes() == content for path, content in zip(paths, contents, strict=True)] == [False, True]
    result = stone("undo")
    assert result.stdout.splitlines() == [f"{paths[0]}\trestored"]
    assert [path.read_bytes() for path in paths] == contents
    assert stone("undo", "--list").stdout.splitlines()[1].split("\t")[3:5] == ["2", "2"]


# Network shares


@pytest.mark.parametrize("lies", ["times", "mode", "owner", "times mode owner"])
def test_files_on_a_share_with_fixed_modes_are_written(
    lies: str, lying_stone: Stone, song: CopySong, quick_model: Path
) -> None:
    path = song("mp3")
    path.chmod(0o666 & ~umask())  # as every new file
    before = path.stat()
    content = path.read_bytes()
    result = lying_stone(lies, "tag", path, "--write-tags", "--model", quick_model)
    assert (result.returncode, result.stderr) == (0, "")
    assert read_tags(path).key is not None
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert lying_stone(lies, "undo").returncode == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("lies", "option", "mode", "reason"),
    [
        ("mode", None, 0o666, "the file would change its permissions from 666 to 600"),
        ("times", "--preserve-mtime", 0o600, "the modification time cannot be kept here; try without --preserve-mtime"),
        ("owner", None, 0o600, "the file would change its owner or group"),
    ],
)
def test_a_real_difference_is_refused_before_the_analysis(
    lies: str,
    option: str | None,
    mode: int,
    reason: str,
    lying_stone: Stone,
    stone: Stone,
    song: CopySong,
    quick_model: Path,
) -> None:
    path = song("mp3")
    path.chmod(mode)
    if lies == "owner":
        if os.geteuid() != 0:
            pytest.skip("needs root, to give files away")
        os.chown(path, 1234, 2345)
    content = path.read_bytes()
    mask = os.umask(0o077)  # with which a new file is for its owner alone
    try:
        options = [option] if option else []
        result = lying_stone(lies, "tag", path, "--write-tags", "--model", quick_model, *options)
    finally:
        os.umask(mask)
    assert (result.returncode, result.stderr) == (1, f"{path}: {reason}\n")
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert ": 0 results" in stone("cache").stdout  # nothing was analyzed


def test_files_of_stone_can_be_on_such_a_share(
    lying_stone: Stone, song: CopySong, quick_model: Path, tmp_path: Path
) -> None:
    path = song("mp3")
    outputs = {"--output": "keys.csv", "--html": "keys.html", "--playlist": "keys.m3u8", "--rekordbox": "keys.xml"}
    options = [part for option, name in outputs.items() for part in (option, tmp_path / name)]
    for command in (
        ["tag", path, "--model", quick_model, *options],
        ["config", "set", "tag.jobs", "1"],
        ["models", "add", quick_model, "--yes"],
    ):
        result = lying_stone("times mode owner", *command)
        assert result.returncode == 0, result.stderr
    assert all((tmp_path / name).stat().st_size for name in outputs.values())


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
