"""Replay every known fault against the installed product and print one line per fault.

    python tests/conformance/replay_faults.py            # all of them, about three minutes
    python tests/conformance/replay_faults.py 10 17 22   # some of them

Each check makes its own input, runs the ``stone`` command that lies beside this Python in a home folder of its own, and
compares what happened with what is right. The number is the fault's number in the list that was kept when the faults
were found. Exit status 1 if a fault is back; a check that needs a program that is missing says so and is skipped.
"""

from __future__ import annotations

import contextlib
import csv
import http.server
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mutagen
import mutagen.flac
import mutagen.id3
import mutagen.mp4
import numpy as np
import soundfile

from stonecli import Key
from stonecli_export.pitch_fork import play_key

STONE = Path(sys.executable).parent / "stone"
REPOSITORY = Path(__file__).resolve().parents[2]
RATE = 22050

Check = Callable[[Path], str]
CHECKS: dict[int, tuple[str, Check]] = {}


class FaultIsBackError(Exception):
    """The product does what the fault describes; the text says what was seen."""


class SkipError(Exception):
    """The check cannot run on this machine; the text says why."""


def fault(number: int, title: str) -> Callable[[Check], Check]:
    """Register a check. It gets an empty folder and returns a short text on what it saw."""

    def register(check: Check) -> Check:
        CHECKS[number] = title, check
        return check

    return register


def expect(condition: object, seen: object) -> None:
    """Raise FaultIsBackError with what was seen unless the condition holds."""
    if not condition:
        raise FaultIsBackError(" ".join(str(seen).split())[:300])


# --- making music and running the product -------------------------------------------------------------------------


def samples(key: str = "A minor", seconds: float = 16.0) -> np.ndarray[Any, Any]:
    """Mono float32 music in a key, [samples] at RATE."""
    return np.asarray(play_key(Key.parse(key), 0, seconds, RATE), dtype=np.float32)


def song(path: Path, key: str = "A minor", seconds: float = 16.0) -> Path:
    """Write music in a key; formats that libsndfile cannot write go through ffmpeg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in {".wav", ".flac", ".mp3", ".ogg", ".aiff"}:
        soundfile.write(path, samples(key, seconds), RATE)
    else:
        plain = song(path.with_suffix(".source.wav"), key, seconds)
        ffmpeg("-i", plain, path)
        plain.unlink()
    return path


def ffmpeg(*arguments: str | Path) -> None:
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def environment(home: Path, **more: str) -> dict[str, str]:
    folders = {f"STONE_{name}_DIR": str(home / name.lower()) for name in ("STATE", "CACHE", "CONFIG", "DATA")}
    plain = {key: value for key, value in os.environ.items() if not key.startswith("STONE_")}
    return plain | folders | {"HOME": str(home), "COLUMNS": "100"} | more


def stone(
    home: Path, *arguments: str | Path, timeout: float = 120, text: bool = True, **more: str
) -> subprocess.CompletedProcess[Any]:
    """Run the installed command with a private home folder; keyword arguments are environment variables."""
    return subprocess.run(
        [str(STONE), *map(str, arguments)],
        env=environment(home, **more),
        cwd=home,
        capture_output=True,
        text=text,
        timeout=timeout,
        check=False,
    )


def records(home: Path, *arguments: str | Path, **more: Any) -> list[dict[str, Any]]:
    """The JSON objects that a command prints."""
    done = stone(home, *arguments, "--json", **more)
    return [json.loads(line) for line in done.stdout.splitlines()]


def preload(folder: Path, source: str) -> str:
    """A shared library that replaces calls of libc, for LD_PRELOAD."""
    if not (compiler := shutil.which("cc")) or not sys.platform.startswith("linux"):
        raise SkipError("needs a C compiler on Linux")
    (folder / "shim.c").write_text("#define _GNU_SOURCE\n" + source)
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"], check=True)
    return str(library)


@contextlib.contextmanager
def running(home: Path, *arguments: str | Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command in the background; killed at the end."""
    process = subprocess.Popen(
        [str(STONE), *map(str, arguments)],
        env=environment(home, **more),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def lines_of(process: subprocess.Popen[str]) -> list[tuple[float, str]]:
    """A list that grows with the lines that the process prints on standard output, each with its time."""
    lines: list[tuple[float, str]] = []
    assert process.stdout

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            lines.append((time.monotonic(), line))

    threading.Thread(target=read, daemon=True).start()
    return lines


def in_terminal(home: Path, columns: int, *arguments: str | Path, **more: str) -> str:
    """The output of a command in a terminal of that width, with its escape sequences."""
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = environment(home, TERM="xterm-256color", COLORTERM="truecolor", **more)
    settings.pop("COLUMNS")
    process = subprocess.Popen(
        [str(STONE), *map(str, arguments)], env=settings, cwd=home, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    output = b""
    with contextlib.suppress(OSError):
        while block := os.read(leader, 65536):
            output += block
    process.wait(60)
    os.close(leader)
    return output.decode(errors="replace")


# --- A. data and safety ------------------------------------------------------------------------------------------

RENAME_LIES = """
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
static int lie(const char *to, int result) {
    size_t n = strlen(to);
    if (result == 0 && n > 5 && !strcmp(to + n - 5, ".flac")) { errno = EIO; return -1; }
    return result;
}
int rename(const char *from, const char *to) {
    return lie(to, ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to));
}
int renameat(int a, const char *from, int b, const char *to) {
    return lie(to, ((int (*)(int, const char *, int, const char *))dlsym(RTLD_NEXT, "renameat"))(a, from, b, to));
}
"""

RENAME_FAILS = """
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
static int fails(const char *to) { return strlen(to) > 7 && !strcmp(to + strlen(to) - 7, "/b.flac"); }
int rename(const char *from, const char *to) {
    if (fails(to)) { errno = EIO; return -1; }
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    if (fails(to)) { errno = EIO; return -1; }
    return ((int (*)(int, const char *, int, const char *))dlsym(RTLD_NEXT, "renameat"))(a, from, b, to);
}
"""

INTERRUPTED_API = """
import os, sys
from pathlib import Path
real = os.replace
def replace(source, target, **more):
    real(source, target, **more)
    if str(target).endswith(".flac"):
        raise KeyboardInterrupt
os.replace = os.rename = replace
from stonecli import Key
from stonecli.tags import recorded, write_key
with recorded() as run:
    write_key(Path(sys.argv[1]), Key.parse("A minor"), journal=run)
"""


@fault(1, "a changed file always has a journal record")
def journal_record(folder: Path) -> str:
    shim = preload(folder, RENAME_LIES)
    seen = []
    for name in ("rename reports EIO", "Ctrl-C after the rename"):
        home = folder / name.replace(" ", "_")
        path = song(home / "music" / "a.flac")
        before = path.read_bytes()
        if name.startswith("rename"):
            stone(home, "tag", path.parent, "--write-tags", LD_PRELOAD=shim)
        else:
            command = [sys.executable, "-c", INTERRUPTED_API, str(path)]
            subprocess.run(command, env=environment(home), capture_output=True, timeout=60, check=False)
        if path.read_bytes() == before:
            seen.append(f"{name}: file unchanged")
            continue
        undo = stone(home, "undo")
        expect(path.read_bytes() == before, f"{name}: changed, and undo said {undo.stdout} {undo.stderr}")
        seen.append(f"{name}: undone")
    return "; ".join(seen)


@fault(2, "watch is linear and stops at once")
def watch_is_quick(folder: Path) -> str:
    arriving = folder / "arriving"
    arriving.mkdir()
    original = song(folder / "one.flac", seconds=4)
    with running(folder, "watch", arriving, "--json", "--settle", "0.5") as process:
        lines = lines_of(process)
        time.sleep(3)
        start = time.monotonic()
        for number in range(1600):
            shutil.copy(original, arriving / f"{number}.flac")
        copied = time.monotonic() - start
        while not lines and time.monotonic() - start < copied + 60:
            time.sleep(0.1)
        expect(lines, f"no result {60 + copied:.0f} s after 1600 files arrived")
        first = lines[0][0] - start
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        ended = time.monotonic() - asked
    expect(first < copied + 10, f"first result after {first:.1f} s")
    expect(ended < 4, f"ended {ended:.1f} s after SIGTERM")
    return f"1600 files copied in {copied:.1f} s, first result after {first:.1f} s, ended {ended:.1f} s after SIGTERM"


@fault(3, "watch is not deaf at the kernel's watch limit")
def watch_limit(folder: Path) -> str:
    shim = preload(
        folder,
        """
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
static int calls;
int inotify_add_watch(int fd, const char *path, uint32_t mask) {
    if (++calls > 3) { errno = ENOSPC; return -1; }
    return ((int (*)(int, const char *, uint32_t))dlsym(RTLD_NEXT, "inotify_add_watch"))(fd, path, mask);
}
""",
    )
    arriving = folder / "arriving"
    for number in range(8):
        (arriving / f"album {number}").mkdir(parents=True)
    original = song(folder / "one.flac", seconds=4)
    with running(folder, "watch", arriving, "--json", "--settle", "0.5", LD_PRELOAD=shim) as process:
        lines = lines_of(process)
        time.sleep(4)
        for number in range(8):
            shutil.copy(original, arriving / f"album {number}" / "song.flac")
        deadline = time.monotonic() + 45
        while len(lines) < 8 and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert process.stderr
        errors = process.stderr.read()
    told = "--poll" in errors or "max_user_watches" in errors
    expect(len(lines) == 8 or told, f"{len(lines)} of 8 files arrived; stderr: {errors}")
    return f"{len(lines)} of 8 files arrived; {'a line names the limit' if told else 'nothing said'}"


@fault(4, "undo says what is left and never reaches for an older run")
def undo_is_clear(folder: Path) -> str:
    shim = preload(folder, RENAME_FAILS)
    first = [song(folder / "music" / f"{name}.flac") for name in "ab"]
    second = song(folder / "later" / "c.flac", "C major")
    before = [path.read_bytes() for path in (*first, second)]
    stone(folder, "tag", folder / "music", "--write-tags")
    stone(folder, "tag", folder / "later", "--write-tags")
    plain = stone(folder, "undo")
    expect(second.read_bytes() == before[2], f"the last run was not undone: {plain.stderr}")
    again = stone(folder, "undo")
    expect(first[0].read_bytes() != before[0], f"a second plain undo undid an older run: {again.stdout}")
    said = again.stdout + again.stderr
    expect("undo 1" in said or re.search(r"\b1\b", said), f"the second undo does not name the older run: {said}")
    damaged = stone(folder, "undo", "1", LD_PRELOAD=shim)
    text = damaged.stdout + damaged.stderr
    expect("b.flac" in text, f"the file that failed is not named: {text}")
    final = stone(folder, "undo", "1")
    expect([path.read_bytes() for path in (*first, second)] == before, f"left changed: {final.stdout} {final.stderr}")
    expect("dry-run" in stone(folder, "undo", "--help").stdout, "undo has no --dry-run")
    return "last run undone, older one only by its number, all bytes restored"


@fault(5, "a damaged cache is rebuilt")
def damaged_cache(folder: Path) -> str:
    path = song(folder / "music" / "a.flac")
    stone(folder, "tag", path.parent)
    [cache] = [
        file
        for file in (folder / "cache").rglob("*")
        if file.is_file() and file.stat().st_size > 8192 and not file.name.endswith(("-wal", "-shm"))
    ]
    for extra in cache.parent.glob(f"{cache.name}-*"):
        extra.unlink()
    data = bytearray(cache.read_bytes())
    data[4096 : 5 * 4096] = os.urandom(min(4 * 4096, len(data) - 4096))
    cache.write_bytes(data)
    for arguments in (["tag", path.parent], ["cache"], ["tag", path.parent]):
        done = stone(folder, *arguments)
        expect(done.returncode == 0, f"stone {arguments[0]}: {done.stderr}")
    data = bytearray(cache.read_bytes())
    data[4096 : 5 * 4096] = b"\xa5" * len(data[4096 : 5 * 4096])
    cache.write_bytes(data)
    done = stone(folder, "cache", "clear")
    expect(done.returncode == 0, f"cache clear: {done.stderr}")
    return "tag, cache and cache clear work on damaged pages"


@fault(6, "a small file cannot make ffmpeg take gigabytes")
def bounded_memory(folder: Path) -> str:
    import resource

    data = (samples(seconds=4) * 32767).astype("<i2").tobytes()
    riff = b"WAVE" + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    riff += b"LIST" + struct.pack("<I", 0x7FFFFFFF) + b"INFO" + b"IART" + struct.pack("<I", 0x7FFFFFF0)
    riff += b"data" + struct.pack("<I", len(data)) + data
    (folder / "bomb.wav").write_bytes(b"RIFF" + struct.pack("<I", len(riff)) + riff)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = stone(folder, "tag", folder / "bomb.wav", "--no-cache")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    expect(peak < 600_000 or peak == before, f"a process took {peak / 1000:.0f} MB: {done.stderr}")
    return f"largest process of the run: {peak / 1000:.0f} MB"


@fault(7, "an endless web folder does not fill memory")
def web_folder(folder: Path) -> str:
    class Endless(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            with contextlib.suppress(OSError):
                for number in range(3_000_000):
                    self.wfile.write(b'<a href="%d.mp3">%d.mp3</a>\n' % (number, number))

    import resource

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        start = time.monotonic()
        done = stone(folder, "tag", f"http://127.0.0.1:{server.server_port}/music/", timeout=60)
        seconds = time.monotonic() - start
    finally:
        server.shutdown()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    expect(done.returncode != 0 and "Traceback" not in done.stderr, done.stderr)
    expect(len(done.stderr) < 2000 and seconds < 20, f"{seconds:.0f} s, {len(done.stderr)} characters of errors")
    expect(peak < 900_000, f"{peak / 1000:.0f} MB")
    return f"refused in {seconds:.1f} s: {done.stderr.strip()[:120]}"


@fault(8, "shares where mode or times cannot be set are no obstacle")
def shares(folder: Path) -> str:
    shim = preload(
        folder,
        """
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
typedef int (*setter)(int, const char *, const struct timespec *, int);
int utimensat(int fd, const char *path, const struct timespec t[2], int flags) {
    if (t) { errno = EPERM; return -1; }
    return ((setter)dlsym(RTLD_NEXT, "utimensat"))(fd, path, t, flags);
}
int futimens(int fd, const struct timespec t[2]) {
    if (t) { errno = EPERM; return -1; }
    return ((int (*)(int, const struct timespec *))dlsym(RTLD_NEXT, "futimens"))(fd, t);
}
int chmod(const char *p, mode_t m) { errno = EPERM; return -1; }
int fchmod(int f, mode_t m) { errno = EPERM; return -1; }
int fchmodat(int f, const char *p, mode_t m, int g) { errno = EPERM; return -1; }
int chown(const char *p, uid_t u, gid_t g) { errno = EPERM; return -1; }
int fchown(int f, uid_t u, gid_t g) { errno = EPERM; return -1; }
int lchown(const char *p, uid_t u, gid_t g) { errno = EPERM; return -1; }
""",
    )
    path = song(folder / "music" / "a.flac")
    path.chmod(0o600)  # the mode of a new file
    done = stone(folder, "tag", path, "--write-tags", LD_PRELOAD=shim)
    expect(mutagen.flac.FLAC(path).get("initialkey"), f"not written: {done.stdout} {done.stderr}")
    return "written although chmod, chown and utimensat are refused"


@fault(9, "cache and journal are private; a failed download leaves nothing")
def private_files(folder: Path) -> str:
    path = song(folder / "music" / "a.flac")
    stone(folder, "tag", path, "--write-tags")
    modes = {}
    for top in ("cache", "state"):
        for file in [folder / top, *(folder / top).rglob("*")]:
            modes[str(file.relative_to(folder))] = file.stat().st_mode & 0o077
    expect(not any(modes.values()), {name: oct(mode) for name, mode in modes.items() if mode})
    stone(folder, "models", "add", "x", "http://127.0.0.1:9/model.onnx")
    left = [file for file in (folder / "data").rglob("*") if file.suffix == ".part"]
    expect(not left, left)
    return f"{len(modes)} files and folders are the user's alone; no .part is left"


# --- B. unusual files ------------------------------------------------------------------------------------------


@fault(10, "bytes after the end of the audio do no harm")
def trailing_bytes(folder: Path) -> str:
    tails = {"ID3v1": b"TAG" + bytes(125), "a NUL": b"\0", "APE": b"APETAGEX" + bytes(24), "zeros": bytes(4096)}
    count = 0
    for suffix in (".flac", ".ogg", ".mp3", ".wav", ".aiff", ".m4a", ".opus", ".wma"):
        original = song(folder / f"original{suffix}").read_bytes()
        for name, tail in tails.items():
            path = folder / "music" / f"{name}{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(original + tail)
            count += 1
    done = records(folder, "tag", folder / "music")
    bad = [
        f"{Path(one['path']).name}: {one['error'] or one['key']}"
        for one in done
        if one["error"] or not one["key"] or one["key"]["camelot"] != "8A"
    ]
    expect(len(done) == count and not bad, f"{len(bad)} of {count} fail: {bad[:3]}")
    return f"{count} files in 8 formats with 4 tails are all 8A"


@fault(11, "out-of-phase stereo has its key")
def out_of_phase(folder: Path) -> str:
    mono = samples()
    stereo = np.stack([mono, -mono], axis=1)
    soundfile.write(folder / "inverted.flac", stereo, RATE)
    ffmpeg("-i", folder / "inverted.flac", folder / "inverted.m4a")
    soundfile.write(folder / "inverted.mp3", stereo, RATE)
    keys = {Path(one["path"]).name: one["key"] and one["key"]["camelot"] for one in records(folder, "tag", folder)}
    expect(set(keys.values()) == {"8A"} and len(keys) == 3, keys)
    return "FLAC, MP3 and M4A: 8A"


def with_second_comments(path: Path, second: dict[str, str]) -> None:
    """Insert another VORBIS_COMMENT block after the first metadata block of a FLAC file."""
    data = path.read_bytes()
    body = struct.pack("<I", 4) + b"test" + struct.pack("<I", len(second))
    for name, value in second.items():
        text = f"{name}={value}".encode()
        body += struct.pack("<I", len(text)) + text
    at = 4 + 4 + int.from_bytes(data[5:8], "big")
    path.write_bytes(data[:at] + bytes([4]) + len(body).to_bytes(3, "big") + body + data[at:])


def flac_comments(path: Path) -> list[str]:
    """All comments of all VORBIS_COMMENT blocks, in lower case."""
    data, at, found = path.read_bytes(), 4, []
    while True:
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
        if kind & 0x7F == 4:
            body = data[at + 4 : at + 4 + size]
            skip = 4 + struct.unpack_from("<I", body)[0]
            count = struct.unpack_from("<I", body, skip)[0]
            skip += 4
            for _ in range(count):
                length = struct.unpack_from("<I", body, skip)[0]
                found.append(body[skip + 4 : skip + 4 + length].decode().lower())
                skip += 4 + length
        at += 4 + size
        if kind & 0x80:
            return found


@fault(12, "a FLAC with two comment blocks never shows two keys")
def two_comment_blocks(folder: Path) -> str:
    path = song(folder / "a.flac")
    file = mutagen.flac.FLAC(path)
    file["INITIALKEY"] = "5B"
    file.save()
    with_second_comments(path, {"INITIALKEY": "5B"})
    before = path.read_bytes()
    done = stone(folder, "tag", path, "--write-tags", "--overwrite")
    keys = {text for text in flac_comments(path) if text.startswith("initialkey=")}
    refused = path.read_bytes() == before and done.returncode == 1
    expect(refused or keys == {"initialkey=8a"}, f"{keys} {done.stderr}")
    return "refused" if refused else f"all blocks say {keys}"


@fault(13, "an MP3 cut at a frame boundary is analyzed")
def cut_mp3(folder: Path) -> str:
    song(folder / "source.wav", seconds=30)
    path = folder / "cut.mp3"
    ffmpeg("-i", folder / "source.wav", "-ar", "44100", "-c:a", "libmp3lame", "-b:a", "128k", path)
    data = path.read_bytes()
    at = data.index(b"\xff\xfb") if b"\xff\xfb" in data else data.index(b"\xff\xf3")
    boundaries = []
    while at + 4 <= len(data) and data[at] == 0xFF:
        padding = data[at + 2] >> 1 & 1
        at += 144 * 128000 // 44100 + padding
        boundaries.append(at)
    path.write_bytes(data[: boundaries[len(boundaries) // 2]])
    done = stone(folder, "tag", path)
    [record] = records(folder, "tag", path)
    expect(record["key"] and record["key"]["camelot"] == "8A", f"{record} {done.stderr}")
    return f"8A; {done.stderr.strip()[:150] or 'nothing said'}"


@fault(14, "a missing decoder is one line for the run")
def missing_decoder(folder: Path) -> str:
    for name in "abc":
        song(folder / "music" / f"{name}.m4a")
    empty = folder / "empty"
    empty.mkdir()
    done = stone(folder, "tag", folder / "music", IMAGEIO_FFMPEG_EXE="/nonexistent", PATH=str(empty))
    expect("m4a: no such file" not in done.stderr, done.stderr)
    if done.returncode == 0:
        return "another decoder was found and used"
    naming = [line for line in done.stderr.splitlines() if "ffmpeg" in line]
    expect(len(naming) == 1 and done.returncode == 1, done.stderr)
    return naming[0][:150]


@fault(15, "error words are true, and analyze takes folders")
def words(folder: Path) -> str:
    for suffix in (".ogg", ".opus", ".wma"):
        path = song(folder / "long" / f"a{suffix}")
        path.write_bytes(path.read_bytes() + b"x")
    failed = [one for one in records(folder, "tag", folder / "long") if one["error"]]
    expect(not failed, failed)
    wav = song(folder / "cut.wav")
    wav.write_bytes(wav.read_bytes()[:-200_001])
    done = stone(folder, "tag", wav, "--write-tags")
    expect("tags" not in done.stderr, done.stderr)
    analyzed = records(folder, "analyze", folder / "long")
    expect(len(analyzed) == 3 and all(one["key"] for one in analyzed), analyzed)
    return f"one byte too many is fine; {done.stderr.strip()[-90:]}; analyze FOLDER gives 3"


@fault(16, "libraries print nothing through the Python API")
def quiet_api(folder: Path) -> str:
    path = song(folder / "a.mp3", seconds=20)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    path.write_bytes(data[:middle] + b"\x12\x34\x56" * 700 + data[middle:])
    code = f"import stonecli; print(stonecli.detect_key({str(path)!r}).key)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(folder), timeout=60, check=False
    )
    noise = [line for line in done.stderr.splitlines() if "mpg123" in line.lower() or "warning" in line.lower()]
    expect(not noise, noise)
    return f"key {done.stdout.strip() or 'none'}, {len(done.stderr.splitlines())} lines on stderr"


# --- C. key texts in the wild --------------------------------------------------------------------------------------


@fault(17, "common spellings are read")
def spellings(folder: Path) -> str:
    table = {
        "8A (Am)": "Am", "7m (D♯m/E♭m)": "Ebm", "F♯/G♭": "F#", "A#m +50": "Bbm", "Abm/G#m": "G#m",
        "8A/Am": "Am", "8A - Am": "Am", "F-Sharp Minor": "F#m", "F Sharp Minor": "F#m", "A-Flat Minor": "G#m",
        "A♭\ufe0fm": "G#m", "8A\u200b": "Am", "Ａｍ": "Am", "８Ａ": "Am",
    }  # fmt: skip
    for number, text in enumerate(table):
        path = song(folder / "music" / f"{number:02}.flac", "F# major", seconds=4)
        file = mutagen.flac.FLAC(path)
        file["INITIALKEY"] = text
        file.save()
    read = {
        list(table)[int(Path(one["path"]).stem)]: one["key"] and one["key"]["musical"]
        for one in records(folder, "tag", folder / "music")
    }
    wrong = {text: got for text, got in read.items() if not got or Key.parse(got) != Key.parse(table[text])}
    expect(not wrong, wrong)
    return f"{len(table)} spellings"


@fault(18, "nothing is written beside a key text that cannot be read")
def unreadable_key(folder: Path) -> str:
    path = song(folder / "music" / "a.mp3")
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TKEY(encoding=3, text=["Key of summer"]))
    tags.save(path)
    before = path.read_bytes()
    done = stone(folder, "tag", path, "--write-tags", "--field", "key", "--field", "comment=camelot")
    expect(path.read_bytes() == before, "the file was changed")
    said = done.stdout + done.stderr
    expect("cannot read" in said or "unreadable" in said, said)
    [record] = records(folder, "tag", path)
    return f"unchanged; status {record.get('status')!r}; {said.strip().splitlines()[-1][:100]}"


@fault(19, "German key names")
def german(folder: Path) -> str:
    table = {"B-Dur": "Bb", "H-Dur": "B", "h-moll": "Bm", "Es-Dur": "Eb", "As-Dur": "Ab", "Fis-Moll": "F#m"}
    wrong = {}
    for text, right in table.items():
        try:
            got = Key.parse(text)
        except ValueError:
            continue  # reading no German at all is right, too
        if got != Key.parse(right):
            wrong[text] = got
    expect(not wrong, wrong)
    return ", ".join(f"{text} = {right}" for text, right in table.items())


@fault(20, "after --overwrite no field says the old key")
def no_old_key(folder: Path) -> str:
    mp3 = song(folder / "a.mp3")
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TKEY(encoding=3, text=["5B"]))
    tags.add(mutagen.id3.TXXX(encoding=3, desc="INITIALKEY", text=["5B"]))
    tags.save(mp3)
    m4a = song(folder / "a.m4a")
    file = mutagen.mp4.MP4(m4a)
    for name in ("initialkey", "KEY"):
        file[f"----:com.apple.iTunes:{name}"] = [mutagen.mp4.MP4FreeForm(b"5B")]
    file.save()
    flac = song(folder / "a.flac")
    comments = mutagen.flac.FLAC(flac)
    comments["INITIALKEY"], comments["KEY"] = "5B", "5B"
    comments.save()
    stone(folder, "tag", folder, "--write-tags", "--overwrite")
    old = {
        path.name
        for path in (mp3, m4a, flac)
        if b"5B" in path.read_bytes()[: 1 << 20] and "5B" in str(dict(mutagen.File(path).tags or {}))
    }
    expect(not old, f"the old key stands in {old}")
    return "TXXX:INITIALKEY, MP4 KEY and Vorbis KEY follow"


@fault(21, "Mixed In Key's comment stays; odd tempo texts are read")
def foreign_comment(folder: Path) -> str:
    path = song(folder / "a.flac")
    file = mutagen.flac.FLAC(path)
    file["COMMENT"], file["BPM"] = "4A - Energy 6", "128 BPM"
    file.save()
    stone(folder, "tag", path, "--write-tags", "--field", "comment")
    comment = " | ".join(mutagen.flac.FLAC(path)["comment"])
    expect("4A - Energy 6" in comment, comment)
    return f"comment: {comment!r}"


# --- D. the screen and the page ------------------------------------------------------------------------------------


@fault(22, "a second run over a tagged library is as full as the first")
def kept_files(folder: Path) -> str:
    for key in ("A minor", "F major", "E major"):
        song(folder / "music" / f"{key}.flac", key)
    tables = []
    for number, options in enumerate((["--write-tags"], [])):
        table = folder / f"{number}.csv"
        stone(folder, "tag", folder / "music", *options, "--output", table, "--html", folder / f"{number}.html")
        tables.append(
            [
                (row["path"], row["confidence"], row["tuning_cents"], row["duration"])
                for row in csv.DictReader(table.open(encoding="utf-8"))
            ]
        )
    expect(tables[0] == tables[1] and all(row[1] for row in tables[1]), tables)
    sizes = [len((folder / f"{number}.html").read_bytes()) for number in range(2)]
    expect(abs(sizes[0] - sizes[1]) < 0.02 * sizes[0], f"pages of {sizes} bytes")
    return "confidence, tuning and duration are the same in CSV; the pages are of one size"


@fault(23, "settings are checked when they are set")
def settings(folder: Path) -> str:
    for value in ("artist", "key,comment"):
        done = stone(folder, "config", "set", "tag.field", value)
        expect(done.returncode != 0 and "field" in done.stderr, f"{value}: {done.stdout} {done.stderr}")
    expect(stone(folder, "config", "set", "tag.field", "comment").returncode == 0, "a good value is refused")
    return "artist and key,comment are refused"


@fault(24, "mix finds --start among the given files")
def mix_start(folder: Path) -> str:
    for key in ("A minor", "F major", "E major"):
        song(folder / "crate" / f"{key}.flac", key)
    for option in ("--start", "--compatible"):
        done = stone(folder, "mix", folder / "crate", option, "F major.flac")
        expect(done.returncode == 0, f"{option}: {done.stderr}")
    return "--start and --compatible take a file's name"


@fault(25, "pipes get output only, and a closed pipe stops no writing")
def pipes(folder: Path) -> str:
    for number in range(6):
        song(folder / "music" / f"{number}.flac")
    command = f"{STONE} tag {folder / 'music'} --write-tags | head -1"
    subprocess.run(["bash", "-c", command], env=environment(folder), capture_output=True, timeout=60, check=False)
    written = sum("initialkey" in mutagen.flac.FLAC(path) for path in (folder / "music").iterdir())
    expect(written == 6, f"{written} of 6 written after | head -1")
    piped = stone(folder, "tag", folder / "music").stdout
    expect("\x1b" not in piped and "\r" not in piped, piped)
    return "6 of 6 written after | head -1; no control sequences in a pipe"


@fault(26, "the page's search is exact for keys")
def page_search(folder: Path) -> str:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        raise SkipError("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    for key in ("F# major", "E major"):  # 2B and 12B
        song(folder / "music" / f"{key}.flac", key)
    page = folder / "keys.html"
    stone(folder, "tag", folder / "music", "--html", page)
    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(page.as_uri())
        box = browser.find_element(By.CSS_SELECTOR, "input[type=search], input")
        box.send_keys("2B")
        time.sleep(1)
        visible = browser.find_element(By.TAG_NAME, "body").text
    expect("F# major" in visible and "E major" not in visible, visible[:250])
    return "2B finds 2B alone"


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """WCAG 2 contrast of two sRGB colors, 1 to 21."""

    def luminance(color: tuple[int, ...]) -> float:
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@fault(27, "key colors are readable on black and white; no escapes in old encodings")
def colors(folder: Path) -> str:
    for key in Key.all():
        song(folder / "music" / f"{key.musical}.flac", key.musical, seconds=8)
    screen = in_terminal(folder, 120, "tag", folder / "music")
    foreground: tuple[int, ...] | None = None
    background: tuple[int, ...] | None = None
    worst = 21.0
    for codes, text in re.findall(r"\x1b\[([\d;]*)m([^\x1b]*)", screen):
        numbers = [int(code or 0) for code in codes.split(";")]
        if 0 in numbers[:1]:
            foreground = background = None
        for at, code in enumerate(numbers):
            if code in (38, 48) and numbers[at + 1 : at + 2] == [2]:
                color = tuple(numbers[at + 2 : at + 5])
                foreground, background = (color, background) if code == 38 else (foreground, color)
        if foreground and re.search(r"\w", text):
            papers = [background] if background else [(0, 0, 0), (255, 255, 255)]
            worst = min(worst, *(contrast(foreground, paper) for paper in papers))
    expect(worst >= 4.5 or worst == 21.0, f"contrast {worst:.2f}")
    for encoding in ("cp1252", "latin-1", "cp932", "ascii"):
        done = stone(folder, "tag", folder / "music", text=False, PYTHONIOENCODING=encoding)
        expect(
            b"\\u" not in done.stdout and b"Traceback" not in done.stderr, (encoding, done.stdout[:200], done.stderr)
        )
        one = stone(folder, "analyze", folder / "music" / "Am.flac", text=False, PYTHONIOENCODING=encoding)
        expect(b"\\u" not in one.stdout, (encoding, one.stdout[:300]))
    return f"least contrast of colored text {worst:.1f}; no \\u in four encodings"


@fault(28, "one help that fits 80 columns")
def one_help(folder: Path) -> str:
    texts = [stone(folder, *arguments, COLUMNS="80").stdout for arguments in ([], ["help"], ["--help"])]
    expect(texts[0] == texts[1] == texts[2] and texts[0], "stone, stone help and stone --help differ")
    longest = 0
    for command in ("tag", "analyze", "mix", "undo", "watch", "train", "export", "evaluate", "models", "config"):
        text = stone(folder, command, "--help", COLUMNS="80").stdout
        expect(text, f"{command} has no help")
        for wrong in ("<bool>", "...}...", "[[", "{PATH"):
            expect(wrong not in text, f"{command} --help has {wrong}")
        longest = max(longest, *(len(line) for line in text.splitlines()))
    expect(longest <= 80, f"a line of {longest} characters")
    return f"three ways, one text; the longest line has {longest} characters"


@fault(29, "file names are readable at every width")
def names(folder: Path) -> str:
    name = "Some Famous Artist with a Long Name - A Rather Long Song Title That Goes On (Extended Club Mix).flac"
    song(folder / "music" / name)
    for columns in (80, 120, 200):
        screen = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", in_terminal(folder, columns, "tag", folder / "music"))
        expect("Some" in screen and "Mix).flac" in screen, f"{columns} columns: {screen[:300]}")
        expect(columns < 200 or name in screen, f"{columns} columns: {screen[:400]}")
    return "start and end at 80 and 120 columns, all of it at 200"


@fault(30, "small things: mix on nothing, undo --list, models show, config, targets")
def small_things(folder: Path) -> str:
    (folder / "empty").mkdir()
    done = stone(folder, "mix", folder / "empty")
    expect(done.returncode == 1 and done.stderr, f"mix EMPTY: {done.returncode} {done.stdout} {done.stderr}")
    path = song(folder / "music" / "a.flac")
    stone(folder, "tag", path, "--write-tags")
    listed = stone(folder, "undo", "--list").stdout
    expect("music" in listed, f"undo --list has no folder: {listed}")
    shown = in_terminal(folder, 100, "models", "show", "default")
    expect(not re.search(r"^#+ ", shown, re.MULTILINE), shown[:200])
    expect(stone(folder, "config").stdout.strip() or stone(folder, "config").stderr.strip(), "config prints nothing")
    done = stone(folder, "tag", path, "--html", folder / "nowhere" / "x.html")
    expect(done.returncode == 2 and not (folder / "nowhere").exists(), f"--html: {done.returncode} {done.stderr}")
    stone(folder, "tag", path, "--rekordbox", folder / "Friday night.xml")
    xml = (folder / "Friday night.xml").read_text(encoding="utf-8")
    expect(re.search(r'<NODE [^>]*Name="Friday night"', xml), f"the rekordbox playlist has another name: {xml[:300]}")
    return "each as it should be"


@fault(31, "dir(stonecli) and print(key)")
def python_names(folder: Path) -> str:
    code = "import stonecli; print(*dir(stonecli)); print(stonecli.Key.parse('8A'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, key = done.stdout.splitlines()
    expect({"detect_key", "detect_keys", "Key", "KeyEstimate", "KeyModel"} <= set(listed.split()), listed)
    expect("tonic" not in key, key)
    return f"print(Key) gives {key}"


@fault(32, "tables and playlists are safe whatever a name is")
def nasty_names(folder: Path) -> str:
    music = folder / "music"
    original = song(folder / "a.flac")
    music.mkdir()
    for name in (b"\xff\xfe.flac", b"y;=1+2.flac", b"x\xc2\x85y.flac", b"=cmd().flac"):
        shutil.copy(original, music / os.fsdecode(name))
    table, playlist = folder / "x.csv", folder / "x.m3u8"
    done = stone(folder, "tag", music, "--output", table, "--playlist", playlist)
    expect(done.returncode == 0, done.stderr)
    text = table.read_bytes().decode("utf-8")  # raises where it is not
    rows = list(csv.reader(text.splitlines()))
    expect(len({len(row) for row in rows}) == 1 and len(rows) == 5, rows)
    expect(not any(line.startswith("=") for line in text.splitlines()), text)
    raw = playlist.read_bytes().decode("utf-8", "surrogateescape")
    controls = [
        line for line in raw.split("\n") if line.startswith("#") and re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", line)
    ]
    expect(not controls, controls)
    return "CSV is UTF-8 with 5 rows; no control characters in the playlist's comments"


@fault(33, "--jobs honors the container's CPU quota")
def cpu_quota(folder: Path) -> str:
    return run_tests("tests/stonecli/util/test_cpus.py")


@fault(34, "README: preview first, stone on the path, every system")
def readme(folder: Path) -> str:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for word in ("pipx", "Windows", "macOS"):
        expect(word in text, f"README does not mention {word}")
    shell = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)
    lines = [line for block in shell for line in block.splitlines()]
    first = [line for line in lines if re.search(r"\bstone tag\b", line)]
    expect(first and "--write-tags" not in first[0], f"the first tag command writes: {first[:1]}")
    return f"first: {first[0][:110]}"


@fault(35, "a file called export.py in the current folder is no obstacle")
def installed_names(folder: Path) -> str:
    for name in ("train.py", "export.py"):
        (folder / name).write_text("raise SystemExit('another program')")
    done = subprocess.run(
        [sys.executable, "-m", "stonecli", "export", "a.pt", "b.onnx"],
        cwd=folder, capture_output=True, text=True, check=False, env=environment(folder),
    )  # fmt: skip
    expect("extra" not in done.stderr and "another program" not in done.stderr and "a.pt" in done.stderr, done.stderr)
    return done.stderr.strip()[:100]


def run_tests(*arguments: str, limit: float = 500, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=limit, check=False, env=os.environ | more,
    )  # fmt: skip
    expect(done.returncode == 0, done.stdout[-400:] + done.stderr[-200:])
    return done.stdout.strip().splitlines()[-1]


@fault(36, "the tests pass where nothing but Python is installed, and leave no process")
def bare_tests(folder: Path) -> str:
    programs = folder / "programs"
    programs.mkdir()
    for name in ("sh", "bash", "env", "ls", "cat", "head", "sleep", "kill", "uname"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    path = f"{Path(sys.executable).parent}:{programs}"
    return run_tests(
        "tests/train/corpus/test_render.py",
        "tests/stonecli/cli/test_train.py",
        "tests/stonecli/cli/test_train_errors.py",
        "tests/stonecli/cli/test_train_resume.py",
        "tests/stonecli/cli/test_tag.py",
        "tests/stonecli/cli/test_tag_bad_input.py",
        "tests/stonecli/cli/test_tag_process.py",
        PATH=path,
    )


@fault(37, "pip resolves the extra dev within a minute")
def resolve_quickly(folder: Path) -> str:
    bounds = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    expect(re.search(r"boto3[^\"]*>=|aiobotocore[^\"]*>=", bounds), "boto3 has no lower bound")
    return "lower bounds are set (time it with: pip install --dry-run '.[dev]' in a new environment)"


@fault(38, "stone train ends after an error of its workers, and needs few open files")
def training_ends(folder: Path) -> str:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise SkipError("needs torch") from None
    rng = np.random.default_rng(0)
    rows = ["path,key"]
    for number in range(700):
        np.save(folder / f"{number}.npy", rng.integers(0, 255, (700, 99), dtype=np.uint8))
        rows.append(f"{number}.npy,{list(Key.all())[number % 24].musical}")
    (folder / "labels.csv").write_text("\n".join(rows))
    config = REPOSITORY / "train" / "configs" / "laptop_ks_mode.toml"
    command = (
        f"ulimit -n 256; exec {STONE} train --type ks_mode --labels labels.csv -g {config} -s {folder / 'runs'} "
        "--epochs 1 --train-steps 2 --val-steps 1"
    )
    start = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment(folder), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise FaultIsBackError("still running after 240 s") from None
    expect("Traceback" not in output and "\\n" not in output, output[-300:])
    expect(process.returncode == 0, output[-300:])
    return f"700 feature files under ulimit -n 256: trained in {time.monotonic() - start:.0f} s"


def main(numbers: list[str]) -> int:
    wanted = [int(number) for number in numbers] or sorted(CHECKS)
    back = 0
    for number in wanted:
        title, check = CHECKS[number]
        with tempfile.TemporaryDirectory(prefix=f"fault{number}-") as folder:
            try:
                verdict, detail = "ok  ", check(Path(folder))
            except FaultIsBackError as error:
                verdict, detail = "BACK", str(error)
            except SkipError as error:
                verdict, detail = "skip", str(error)
            except Exception as error:  # a check that breaks tells as much as one that fails
                verdict, detail = "BACK", f"{type(error).__name__}: {error}"
        back += verdict == "BACK"
        print(f"{number:2} {verdict} {title}: {' '.join(detail.split())}", flush=True)
    print(f"{back} of {len(wanted)} faults are back" if back else f"none of {len(wanted)} faults is back")
    return back > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
