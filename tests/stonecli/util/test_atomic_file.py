"""Atomic writes."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from stonecli.util.atomic_file import atomic_file, atomic_text_file, umask
from tests.fixture_types import CopySong, Invoke, LimitFileSize

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("durable", [False, True])
class TestAtomicFile:
    def test_replaces_the_file_at_the_end(self, durable: bool, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"old")
        with atomic_file(path, durable=durable) as temporary:
            temporary.write_bytes(b"new")
            assert path.read_bytes() == b"old"
            assert temporary.parent == tmp_path
        assert path.read_bytes() == b"new"
        assert [*tmp_path.iterdir()] == [path]

    def test_leaves_the_file_after_an_error(self, durable: bool, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"old")

        def fail() -> None:
            with atomic_file(path, durable=durable) as temporary:
                temporary.write_bytes(b"half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert path.read_bytes() == b"old"
        assert [*tmp_path.iterdir()] == [path]

    @pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")
    def test_has_the_mode_of_a_new_file(self, durable: bool, tmp_path: Path) -> None:
        with atomic_file(tmp_path / "a", durable=durable):
            pass
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask()

    def test_names_the_file_in_errors(self, durable: bool, tmp_path: Path) -> None:
        path = tmp_path / "no folder" / "a"
        with pytest.raises(OSError, match=r"No such file|cannot find") as caught, atomic_file(path, durable=durable):
            pass
        assert caught.value.filename == str(path)


def test_a_text_file_is_utf_8_with_unix_line_ends(tmp_path: Path) -> None:
    with atomic_text_file(tmp_path / "a") as file:
        file.write("é\n")
    assert (tmp_path / "a").read_bytes() == "é\n".encode()


def test_no_other_module_renames_temporary_files() -> None:
    """Music files have a way of their own: a verified copy. Folders are renamed by the code that makes them."""
    pattern = re.compile(
        r"mkstemp\(|NamedTemporaryFile\(|os\.replace\(|os\.rename\(|temporary\)?\.replace\(|\.tmp\"\)\.replace\("
    )
    modules = [path for folder in ("stonecli", "train", "export") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {path.relative_to(ROOT).as_posix() for path in modules if pattern.search(path.read_text("utf-8"))}
    assert found == {"stonecli/util/atomic_file.py", "stonecli/tags/edit/atomic_replace.py"}


NOT_ATOMIC = {  # files in temporary folders, rows that are appended, and no file of the user's at all
    "stonecli/cli/common.py",
    "stonecli/cli/models.py",
    "stonecli/remote/storage.py",
    "stonecli/tags/undo/worker_journals.py",
    "train/corpus/fluidsynth.py",
    "train/corpus/game_music.py",
    "train/corpus/lmms.py",
    "train/corpus/mma.py",
    "train/watchers.py",
}


def test_no_other_module_writes_files_in_place() -> None:
    """After an error in the middle of a write in place, the old file is gone and the new one is damaged."""
    writes = re.compile(
        r"write_(text|bytes)\(|open\([^)]*[\"'][wax]b?[\"']|savefig\(|\bPdfPages\((?!content)|(np|numpy)\.savez?\(|torch\.save\("
        r"|soundfile\.write\(|to_(parquet|csv)\("
    )
    elsewhere = re.compile(r"temporary|\((content, )?(file|sound)\b|\bpages\.|``|archive\.open|\(file, ")
    modules = [path for folder in ("stonecli", "train", "export") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in modules
        if any(writes.search(line) and not elsewhere.search(line) for line in path.read_text("utf-8").splitlines())
    }
    assert found == NOT_ATOMIC


@pytest.mark.parametrize("option", ["--html", "--rekordbox"])
def test_the_output_that_does_not_fit_on_the_disk_is_named(
    invoke: Invoke,
    song: CopySong,
    tmp_path: Path,
    no_room: LimitFileSize,
    option: str,
) -> None:
    output = tmp_path / f"keys{'.html' if option == '--html' else '.xml'}"
    path = song("mp3", "long name " * 20)
    with no_room():
        result = invoke("tag", path, "--no-cache", "--quiet", option, output)
    assert (result.exit_code, result.stderr) == (1, f"stone: {output}: file too large\n")
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith((".keys", "keys"))} == set()
