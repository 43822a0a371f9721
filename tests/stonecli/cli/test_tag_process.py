"""``stone tag`` as a process: signals, pipes, terminals and the shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from mutagen.flac import FLAC

from stonecli.model import session as model
from tests.fixture_types import CopySong, RunStone
from tests.stonecli.cli.tag_table import key_in


class TestEnd:
    @pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_ctrl_c_keeps_the_finished_files(
        self, stone_command: list[str], songs: Mapping[str, Path], folder: Path, tmp_path: Path, end: str
    ) -> None:
        contents = {}
        for number in range(50):
            for container in ("mp3", "m4a aac"):  # one is decoded in the process, one by ffmpeg
                path = folder / f"{number}{songs[container].suffix}"
                contents[path] = songs[container].read_bytes()
                path.write_bytes(contents[path])
        table, old, new = (tmp_path / name for name in ("out.ndjson", "old.html", "new.m3u8"))
        old.write_text("the page of another library")
        options = [
            "--no-cache",
            "--write-tags",
            "--jobs",
            "2",
            "--json",
            "--output",
            table,
            "--html",
            old,
            "--playlist",
            new,
        ]
        process = subprocess.Popen(
            [*stone_command, "tag", *map(str, options), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        head = [process.stdout.readline() for _ in range(6)]
        os.killpg(process.pid, getattr(signal, end))  # as the terminal does: to all that belong together
        rest, errors = process.stdout.read(), process.stderr.read()  # communicate() would miss what was read ahead
        assert process.wait(timeout=60) == 130
        assert errors.splitlines() == [
            f"stone: {old} was not replaced, because the run did not finish",
            "stone: interrupted; the files shown above are done",
        ]
        assert old.read_text() == "the page of another library"
        records = [json.loads(line) for line in [*head, *rest.splitlines()]]
        assert 6 <= len(records) < len(contents)
        assert {record["status"] for record in records} == {"written"}
        assert [json.loads(line) for line in table.read_text().splitlines()] == records
        assert new.read_text().count("#EXTINF") == len(records)
        finished = {Path(record["path"]) for record in records}
        for path, content in contents.items():
            if path in finished:
                assert key_in(path) == "7A"
            else:
                assert path.read_bytes() == content
        assert set(folder.iterdir()) == set(contents)  # and no temporary file
        assert [*tmp_path.glob(".*.tmp")] == []

    def test_nothing_on_standard_input(self, stone_command: list[str]) -> None:
        for command in ("tag", "mix", "analyze"):
            done = subprocess.run([*stone_command, command, "-"], input=b"", capture_output=True, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"stone: no music files found\n"), command

    def test_cuda_on_a_machine_without_a_gpu(self, stone: RunStone, song: CopySong) -> None:
        if model._why_no_cuda() is None:
            pytest.skip("there is CUDA here")
        path = song("mp3")
        result = stone("tag", "--device", "cuda", path, "--write-tags")
        assert result.returncode == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("stone: CUDA is not available: ")
        assert key_in(path) is None
        assert stone("tag", "--device", "auto", path).stderr == ""


def in_terminal(command: list[str], columns: int = 120) -> tuple[int, str]:
    """Exit code and all that a terminal gets to see of a command."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = bytearray()
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    return process.wait(60), seen.decode()


class TestTerminal:
    def test_no_name_and_no_tag_reaches_the_terminal_as_it_is(
        self, stone_command: list[str], songs: Mapping[str, Path], folder: Path
    ) -> None:
        evil = "a\x1b]0;pwn\x07b\x1b[2J\x1b[5m[blink]x [-bold] :smile:"
        shutil.copy(songs["flac"], folder / f"{evil}.flac")
        (folder / f"{evil}.mp3").write_text("broken")
        tagged = Path(shutil.copy(songs["flac"], folder / "tagged.flac"))
        tags = FLAC(tagged)
        tags["initialkey"] = "\x1b[5m\x07[b]\n"
        tags.save()
        code, seen = in_terminal([*stone_command, "tag", str(folder)])
        assert code == 1
        assert "\x1b[1;30;48;2;" in seen or ";48;2;" in seen  # in color
        for sequence in ("\x07", "\x1b]", "\x1b[2J", "\x1b[5m", "\x1b[5;"):
            assert sequence not in seen
        plain = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\d*[AK]|\x1b\[\?25[lh]|\r", "", seen)
        assert "\x1b" not in plain
        assert "\\x1b]0;pwn\\x07b\\x1b[2J\\x1b[5m[blink]x [-bold] :smile:.flac" in plain
        assert "[blink]x [-bold] :smile:.mp3: cannot be decoded" in plain
        summary = "1 detected, 1 with a key text that stone cannot read, 1 failed"
        assert f"{summary}; no file was changed, add --write-tags to write the keys" in plain

    def test_a_terminal_sees_progress_and_a_table(
        self, stone_command: list[str], songs: Mapping[str, Path], folder: Path
    ) -> None:
        for number in range(3):
            shutil.copy(songs["mp3"], folder / f"{number}.mp3")
        code, seen = in_terminal([*stone_command, "tag", "--write-tags", str(folder)], columns=90)
        assert code == 0, seen
        assert "3/3" in seen  # the bar, which is gone in the end
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen).replace("\r", "\n")
        for number in range(3):
            assert re.search(rf"^{number}\.mp3 +- +7A +Dm +\d\d%  written *$", plain, re.MULTILINE)
        assert "3 written" in plain

    def test_no_color_in_a_terminal(self, stone_command: list[str], song: CopySong) -> None:
        path = song("flac")
        outputs = []
        for extra in ({}, {"NO_COLOR": "1"}):
            master, slave = pytest.importorskip("pty").openpty()
            environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **extra}
            environment = {name: value for name, value in environment.items() if name != "NO_COLOR" or extra}
            subprocess.run(
                [*stone_command, "analyze", str(path)], stdout=slave, stderr=slave, env=environment, check=True
            )
            os.close(slave)
            outputs.append(os.read(master, 65536).decode())
            os.close(master)
        assert "\x1b[38;2" in outputs[0]
        assert "\x1b[38;2" not in outputs[1]
        assert "|7A-" in outputs[1]


class TestShell:
    def test_the_shell_completes(self, stone_command: list[str]) -> None:
        """As the script does that ``stone --install-completion`` installs."""
        environment = {
            **os.environ,
            "_STONE_COMPLETE": "complete_bash",
            "COMP_WORDS": "stone tag --wri",
            "COMP_CWORD": "2",
        }
        command = [stone_command[0], "-c", "from stonecli.cli.main import app; app(prog_name='stone')"]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert process.stdout.strip() == "--write-tags"
