import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import wave
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from stonecli.tags import read_tags
from tests.fixture_types import Encode, Invoke, MakeMusic


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_new_files_are_tagged_once_and_ctrl_c_ends_it(
    stone_command: list[str], songs: Mapping[str, Path], tmp_path: Path, end: signal.Signals
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    command = [*stone_command, "watch", str(folder), "--write-tags", "--json", "--settle", "0.5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    shutil.copy(songs["mp3"], folder / "a.mp3")
    first = json.loads(process.stdout.readline())
    assert (first["path"], first["status"]) == (str(folder / "a.mp3"), "written")
    (folder / "bad.mp3").write_text("text")
    assert json.loads(process.stdout.readline())["status"] == "error"
    shutil.copy(songs["flac"], folder / "b.flac")
    assert json.loads(process.stdout.readline())["path"] == str(folder / "b.flac")  # and not a.mp3, which we changed
    process.send_signal(end)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    assert errors.count("\n") == 1  # that of bad.mp3
    assert {read_tags(path).text for path in (folder / "a.mp3", folder / "b.flac")} == {"7A"}


def test_wrong_usage(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("watch", tmp_path / "none").exit_code == 2
    assert invoke("watch", tmp_path, "--field", "mood").exit_code == 2


def test_a_removed_folder_ends_the_watch(stone_command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    process = subprocess.Popen([*stone_command, "watch", str(folder)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    folder.rmdir()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, f"stone: {folder}: the folder was removed\n")


BURST = 5_000


@contextmanager
def watching(command: list[str], folder: Path, *options: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """``stone watch`` as a process that has started to watch; killed at the end if it still runs.

    What it writes to standard error later is collected in a file beside the folder, ``errors.txt``.
    """
    arguments = [*command, "watch", str(folder), "--json", "--settle", "0.5", *options]
    errors = folder.parent / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **env}
        )
    try:
        end = time.monotonic() + 60
        while "watching" not in errors.read_text():
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def arriving(recording: Path, folder: Path) -> Iterator[threading.Thread]:
    """Copies of a recording that arrive in the folder, one after the other, from a thread of its own."""
    content = recording.read_bytes()
    stop = threading.Event()

    def copy() -> None:
        for number in range(BURST):
            if stop.is_set():
                return
            (folder / f"{number}{recording.suffix}").write_bytes(content)

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def tiny(music: MakeMusic, encode: Encode, tmp_path: Path) -> Path:
    """Two seconds of music."""
    return encode(music("A minor", seconds=2, rate=8000), 8000, "wav 16 bit", tmp_path / "tiny")


@pytest.mark.slow
def test_thousands_of_files_in_one_folder_are_live_and_complete(
    stone_command: list[str], tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with watching(stone_command, folder, "--write-tags", "--field", "comment") as process:
        start = time.monotonic()
        with arriving(tiny, folder):
            lines = process.stdout or pytest.fail("no output")
            records = [json.loads(lines.readline())]
            assert time.monotonic() - start < 0.5 + 5.0
            records += [json.loads(lines.readline()) for _ in range(BURST - 1)]
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        rest, _ = process.communicate(timeout=60)
        assert time.monotonic() - sent < 2.0
        assert (process.returncode, rest) == (0, "")
    assert Counter(record["path"] for record in records) == Counter(
        str(folder / f"{number}.wav") for number in range(BURST)
    )
    assert {record["error"] for record in records} == {None}


def test_sigterm_ends_it_in_the_middle_of_a_burst(stone_command: list[str], tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with watching(stone_command, folder) as process, arriving(tiny, folder):
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        rest = process.stdout.read()
        assert process.wait(60) == 0
        assert time.monotonic() - sent < 2.0
        assert all(json.loads(line)["error"] is None for line in rest.splitlines())


def test_sigterm_does_not_wait_for_a_long_recording(
    stone_command: list[str], music: MakeMusic, encode: Encode, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    recording = encode(music("A minor", seconds=16, rate=8000), 8000, "wav 8 bit", tmp_path / "mix")
    with wave.open(str(recording)) as file:
        content, parameters = file.readframes(file.getnframes()), file.getparams()
    with wave.open(str(recording), "wb") as file:
        file.setparams(parameters)
        for _ in range(3 * 3600 // 16):  # three hours
            file.writeframes(content)
    with watching(stone_command, folder) as process:
        recording.rename(folder / "mix.wav")
        time.sleep(3.0)  # it is being analyzed now, which takes much longer
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        rest, _ = process.communicate(timeout=60)
        assert time.monotonic() - sent < 2.0
        assert (process.returncode, rest) == (0, "")


LIMITED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
int inotify_add_watch(int descriptor, const char *path, uint32_t mask) {
    static int left = -1;
    if (left < 0) left = atoi(getenv("WATCHES"));
    if (left == 0) { errno = ENOSPC; return -1; }
    left--;
    return ((int (*)(int, const char *, uint32_t)) dlsym(RTLD_NEXT, "inotify_add_watch"))(descriptor, path, mask);
}
int inotify_init1(int flags) {
    if (getenv("NO_INSTANCES")) { errno = EMFILE; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "inotify_init1"))(flags);
}
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the kernel seems to watch no more than ``WATCHES`` folders."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(LIMITED)
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


@pytest.mark.parametrize("watches", [0, 3])
def test_folders_over_the_watch_limit_are_polled_with_a_warning(
    stone_command: list[str], limited: dict[str, str], tiny: Path, tmp_path: Path, watches: int
) -> None:
    folder = tmp_path / "in"
    for number in range(10):
        (folder / f"folder {number}").mkdir(parents=True)
    with watching(stone_command, folder, **limited, WATCHES=str(watches)) as process:
        time.sleep(1.0)
        (folder / "new" / "deep").mkdir(parents=True)  # no watch is left for these
        targets = [folder / "a.wav", folder / "folder 0" / "b.wav", folder / "folder 9" / "c.wav"]
        targets.append(folder / "new" / "deep" / "d.wav")
        for target in targets:
            shutil.copy(tiny, target)
        assert process.stdout is not None
        assert {json.loads(process.stdout.readline())["path"] for _ in targets} == {str(target) for target in targets}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    (line,) = [line for line in (tmp_path / "errors.txt").read_text().splitlines() if "polling" in line]
    assert "fs.inotify.max_user_watches" in line
    assert "--poll" in line


def test_without_inotify_folders_are_polled_with_a_warning(
    stone_command: list[str], limited: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with watching(stone_command, folder, **limited, WATCHES="0", NO_INSTANCES="1") as process:
        shutil.copy(tiny, folder / "a.wav")
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["path"] == str(folder / "a.wav")
    (line,) = [line for line in (tmp_path / "errors.txt").read_text().splitlines() if "polling" in line]
    assert "fs.inotify.max_user_instances" in line
