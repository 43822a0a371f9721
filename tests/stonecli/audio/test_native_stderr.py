"""The messages of libmpg123 never reach the user, and those of others do."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stonecli.audio.native_stderr import libmpg123_silenced


@pytest.fixture(scope="module")
def odd_mp3s(songs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MP3s about which libmpg123 complains."""
    folder = tmp_path_factory.mktemp("odd")
    content = songs["mp3"].read_bytes()
    rng = random.Random(1)
    for number in range(12):
        damaged = bytearray(content)
        for _ in range(60):
            damaged[rng.randrange(2000, len(damaged))] = rng.randrange(256)
        middle = len(damaged) // 2
        damaged[middle:middle] = rng.randbytes(3000)
        (folder / f"{number}.mp3").write_bytes(damaged)
    return folder


def run_python(code: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "STONE_DEBUG": "", **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)


DETECT = """
import sys
from stonecli import detect_keys
print(sum(1 for _ in detect_keys(sorted(sys.argv[2:]), jobs=int(sys.argv[1]))))
"""


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_the_python_api_prints_nothing(odd_mp3s: Path, jobs: str) -> None:
    done = run_python(DETECT, jobs, *odd_mp3s.iterdir())
    assert (done.returncode, done.stdout, done.stderr) == (0, "12\n", "")


def test_the_files_are_odd_indeed(odd_mp3s: Path) -> None:
    """STONE_DEBUG shows everything."""
    done = run_python(DETECT, "1", *odd_mp3s.iterdir(), STONE_DEBUG="1")
    assert "libmpg123" in done.stderr
    assert "Note: " in done.stderr


def test_lines_of_other_threads_arrive(odd_mp3s: Path) -> None:
    code = """
import logging, sys, threading, time
from stonecli.audio.decode import read_audio
logging.basicConfig(format="%(message)s", level=logging.INFO)
stop = threading.Event()
def log():
    number = 0
    while not stop.is_set():
        logging.info("line %d", number)
        number += 1
        time.sleep(0.0005)
    print(number)
threads = [threading.Thread(target=log)]
def read(path):
    try:
        for _ in read_audio(path, 11025): pass
    except Exception: pass
readers = [threading.Thread(target=read, args=(path,)) for path in sys.argv[1:]]
threads[0].start()
for reader in readers: reader.start()
for reader in readers: reader.join()
stop.set()
threads[0].join()
"""
    done = run_python(code, *odd_mp3s.iterdir())
    count = int(done.stdout)
    assert count > 10
    # A line that was copied may come a little later than one that was not.
    assert sorted(done.stderr.splitlines()) == sorted(f"line {number}" for number in range(count))


def test_without_a_standard_error(odd_mp3s: Path) -> None:
    code = "import os; os.close(2)\n" + DETECT
    done = run_python(code, "1", *odd_mp3s.iterdir())
    assert (done.returncode, done.stdout) == (0, "12\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_the_real_standard_error(odd_mp3s: Path) -> None:
    code = """
import os
from stonecli.audio.native_stderr import libmpg123_silenced
with libmpg123_silenced():
    os.write(2, b"Note: Trying to resync...\\nhello\\n")
    child = os.fork()
    if not child:
        os.write(2, b"child\\n")
        with libmpg123_silenced():
            os.write(2, b"Note: Skipped 3 bytes in input.\\nchild again\\n")
        os._exit(0)
    os.waitpid(child, 0)
os.write(2, b"after\\n")
"""
    done = run_python(code)
    assert sorted(done.stderr.splitlines()) == ["after", "child", "child again", "hello"]
    assert done.returncode == 0


def test_only_messages_of_libmpg123_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    kept = ["Warning: disk almost full", "Note: to self", "[src/other/file.c] error: x", "", "half a line"]
    dropped = [
        "[src/libmpg123/layer3.c:INT123_do_layer3():1841] error: dequantization failed!",
        "Note: Illegal Audio-MPEG-Header 0x00000000 at offset 33361.",
        "Note: Trying to resync...",
        "Note: Skipped 1024 bytes in input.",
        "Warning: Xing stream size off by more than 1%, fuzzy seeking may be even more fuzzy than by design!",
        "Note: Hit end of (available) data during resync.",
    ]
    lines = [*dropped[:3], *kept[:2], *dropped[3:], *kept[2:]]
    for _ in range(2):
        with libmpg123_silenced():
            os.write(2, "\n".join(lines).encode())
        assert capfd.readouterr().err == "\n".join(kept)
