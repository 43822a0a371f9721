"""Standard output as a pipe: its content, and readers that stop early."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from stonecli.cli.help import COMMANDS
from stonecli.tags import read_tags
from tests.fixture_types import CopySong
from tests.tag_samples import tagged

pty = pytest.importorskip("pty")

ROWS = [
    ["tag", "MUSIC"],
    ["tag", "MUSIC", "--json"],
    ["analyze", "MUSIC"],
    ["compare", "MUSIC"],
    ["convert", "MUSIC"],
    ["mix", "MUSIC"],
    ["watch", "MUSIC"],
    ["evaluate", "LABELS"],
    ["undo", "--list"],
    ["models"],
    ["cache"],
    ["config", "path"],
]
"""Every command that prints rows; ``tag`` also as JSON, which is printed in another way."""


@pytest.fixture
def folder(songs: Mapping[str, Path], tmp_path: Path) -> Path:
    made = tmp_path / "music"
    made.mkdir()
    for number in range(6):
        shutil.copy(songs["mp3"], made / f"{number}.mp3")
    return made


def on_a_terminal(command: list[str], shell: str) -> str:
    """The terminal output of a shell command line, in which "$@" is the command."""
    reader, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", *command], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    seen = b""
    try:
        while block := os.read(reader, 1 << 16):
            seen += block
    except OSError:  # EIO on Linux: the other end is closed
        pass
    os.close(reader)
    assert process.wait(60) == 0
    return seen.decode().replace("\r\n", "\n")


class TestProgress:
    """A progress bar and rows of a pipe would meet on one terminal."""

    @pytest.mark.parametrize("line", [["tag"], ["tag", "--json"]], ids=" ".join)
    def test_none_beside_a_pipe(self, stone_command: list[str], folder: Path, line: list[str]) -> None:
        seen = on_a_terminal([*stone_command, *line, str(folder)], '"$@" | cat')
        assert "\x1b" not in seen
        assert len(seen.splitlines()) == 6 + (line == ["tag"])

    def test_a_bar_beside_a_file(self, stone_command: list[str], folder: Path, tmp_path: Path) -> None:
        seen = on_a_terminal([*stone_command, "tag", str(folder)], f'"$@" > {tmp_path}/keys.tsv')
        assert "/6" in seen
        assert "\x1b" not in (tmp_path / "keys.tsv").read_text()
        assert len((tmp_path / "keys.tsv").read_text().splitlines()) == 7


class TestReaderThatLeaves:
    def without_reader(self, command: list[str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            return subprocess.run([*command, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
        finally:
            os.close(writer)

    @pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
    def test_every_file_is_tagged(self, stone_command: list[str], folder: Path, options: list[str]) -> None:
        result = self.without_reader(stone_command, "tag", folder, "--write-tags", *options)
        assert (result.returncode, result.stderr) == (0, "")
        assert [read_tags(path).text for path in sorted(folder.iterdir())] == ["7A"] * 6

    def test_every_file_is_restored(self, stone_command: list[str], folder: Path) -> None:
        before = {path: path.read_bytes() for path in folder.iterdir()}
        subprocess.run([*stone_command, "tag", folder, "--write-tags"], check=True, capture_output=True, timeout=60)
        result = self.without_reader(stone_command, "undo")
        assert result.returncode == 0
        assert {path: path.read_bytes() for path in folder.iterdir()} == before

    def test_an_output_file_is_whole(self, stone_command: list[str], folder: Path, tmp_path: Path) -> None:
        result = self.without_reader(stone_command, "tag", folder, "--output", tmp_path / "keys.csv")
        assert (result.returncode, result.stderr) == (0, "")
        assert len((tmp_path / "keys.csv").read_text("utf-8-sig").splitlines()) == 7

    @pytest.mark.parametrize("line", ROWS, ids=" ".join)
    def test_a_command_that_prints_rows_ends_at_once(
        self, stone_command: list[str], song: CopySong, tmp_path: Path, line: list[str]
    ) -> None:
        file, labels = tagged(song("flac"), initialkey="Am"), tmp_path / "labels.csv"
        labels.write_text(f"path,key\n{file},Am\n")
        paths = {"MUSIC": str(file.parent), "LABELS": str(labels)}
        result = self.without_reader(stone_command, *(paths.get(word, word) for word in line))
        told = f"stone: watching {file.parent}; press Ctrl-C to stop\n" if line[0] == "watch" else ""
        assert (result.returncode, result.stderr) == (1, told)

    def test_every_command_that_prints_rows_is_tested(self) -> None:
        assert {line[0] for line in ROWS} == set(COMMANDS) - {"train", "export"}

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
    def test_a_full_disk_is_an_error_after_the_work(self, stone_command: list[str], folder: Path) -> None:
        with Path("/dev/full").open("w") as full:
            result = subprocess.run(
                [*stone_command, "tag", folder, "--write-tags"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.startswith("stone: standard output: no space left on device; ")
        assert [read_tags(path).text for path in sorted(folder.iterdir())] == ["7A"] * 6


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_messages_that_cannot_be_printed_stop_nothing(stone_command: list[str], folder: Path, stderr: str) -> None:
    (folder / "0.mp3").write_bytes(b"no music")
    command = [*stone_command, "tag", str(folder), "--write-tags", "--jobs", "1"]
    result = subprocess.run(
        ["sh", "-c", f'exec "$@" {stderr}', "sh", *command], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert result.returncode == 1
    assert [read_tags(path).text for path in sorted(folder.iterdir())[1:]] == ["7A"] * 5
