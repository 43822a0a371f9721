"""After any failure, the file is either unchanged or completely written."""

import ctypes
import io
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import pytest

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.library.walk import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from stonecli.tags.edit import atomic_replace as safe_write
from stonecli.tags.edit.splice import Splice, UnchangedRange
from stonecli.tags.edit.verified_copy import verified_copy
from stonecli.tags.formats import flac
from stonecli.tags.undo.journal import UndoJournal
from stonecli.util import locks
from tests.fixture_types import CopySample, ListLeftovers

ROOT = Path(__file__).parents[4]
A_MINOR = Key.parse("8A")


@pytest.fixture
def song(make: CopySample) -> Path:
    return make("flac")


def test_a_symbolic_link_stays_and_its_target_is_written(song: Path, tmp_path: Path, left_over: ListLeftovers) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = song.rename(tmp_path / "elsewhere" / "target")
    link, chain = tmp_path / "link", tmp_path / "chain"
    link.symlink_to(Path("elsewhere") / "target")
    chain.symlink_to("link")
    assert write_key(chain, A_MINOR)
    assert link.is_symlink()
    assert chain.is_symlink()
    assert not target.is_symlink()
    assert read_tags(target).text == "8A"
    assert left_over() == []


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(TagError, match="no such file"):
        write_key(tmp_path / "link", A_MINOR)


def test_a_file_with_hard_links_is_refused(song: Path, tmp_path: Path) -> None:
    content = song.read_bytes()
    os.link(song, tmp_path / "other")
    with pytest.raises(TagError, match="hard links"):
        write_key(song, A_MINOR)
    assert song.read_bytes() == content
    assert song.stat().st_nlink == 2


@pytest.mark.parametrize("act", [write_key, lambda path, key: remove_key(path)])
def test_a_read_only_file_is_refused_even_for_root(act: Callable[..., Any], song: Path) -> None:
    if act is not write_key:
        write_key(song, A_MINOR)
    content = song.read_bytes()
    song.chmod(0o444)
    with pytest.raises(TagError, match="read-only"):
        act(song, A_MINOR)
    assert song.read_bytes() == content


def test_a_read_only_file_that_is_right_is_right(song: Path) -> None:
    write_key(song, A_MINOR)
    song.chmod(0o444)
    assert not write_key(song, A_MINOR)


def test_mode_owner_and_attributes_stay(song: Path) -> None:
    song.chmod(0o640)
    try:
        os.setxattr(song, "user.rating", b"five")
        attribute = True
    except OSError:
        attribute = False
    if os.geteuid() == 0:
        os.chown(song, 1234, 2345)
    before = song.stat()
    assert write_key(song, A_MINOR)
    after = song.stat()
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    if attribute:
        assert os.getxattr(song, "user.rating") == b"five"


WRITER = """
import sys
from pathlib import Path
from stonecli.util import locks
from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import remove_key, undo_change, write_key
from stonecli.tags.undo.journal import UndoJournal
path, journal = map(Path, sys.argv[1:3])
for act in (
    lambda: write_key(path, Key.parse("3B")),
    lambda: remove_key(path),
    lambda: [undo_change(change.path, change.undo) for change in UndoJournal(journal).changes(1)],
):
    try:
        print(act())
    except TagError as error:
        print(error)
"""


def _drop_powers() -> None:
    """From the next exec on root is a user like any other: of the group 0, and of 3456."""
    for capability in range(5):  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID
        if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):
            raise OSError("prctl")


@pytest.fixture
def as_user(song: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Writes, removes and undoes without root privileges; the message of each about a file with this status."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("needs root, to give files away")
    journal = UndoJournal(tmp_path_factory.mktemp("journal") / "undo.sqlite3")
    assert write_key(song, A_MINOR, journal=journal.start(""))
    journal.close()

    def run(owner: int, group: int, mode: int) -> list[str]:
        os.chown(song, owner, group)
        song.chmod(mode)
        command: list[str | Path] = [sys.executable, "-c", WRITER, song, journal.path]
        options: dict[str, Any] = {"extra_groups": [0, 3456], "preexec_fn": _drop_powers, "cwd": ROOT}
        done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
        return str(done.stdout).splitlines()

    return run


@pytest.mark.parametrize(
    ("owner", "group", "mode", "reason"),
    [
        (1234, 2345, 0o644, "no permission to write the file"),
        (1234, 0, 0o644, "no permission to write the file"),
        (1234, 0, 0o664, "the file would change its owner or group"),
        (1234, 2345, 0o666, "the file would change its owner or group"),
        (0, 2345, 0o664, "the file would change its owner or group"),  # its owner is not in the group
    ],
)
def test_a_file_of_another_user_is_refused(
    owner: int, group: int, mode: int, reason: str, as_user: Callable[..., Any], song: Path, left_over: ListLeftovers
) -> None:
    content = song.read_bytes()
    assert as_user(owner, group, mode) == [reason] * 3
    status = song.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (owner, group, mode)
    assert song.read_bytes() == content
    assert left_over() == []


MOUNTED = """
mount -t tmpfs none "$1" && cp "$2" "$1/song" && chmod "$3" "$1/song" && mount -o remount,ro "$1" || exit 77
exec "$4" -c "$5" "$1/song" "$6"
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("unshare") is None, reason="needs unshare, to mount a disk")
@pytest.mark.parametrize("mode", ["644", "444"])
def test_a_disk_that_is_mounted_read_only_is_named(song: Path, tmp_path: Path, mode: str) -> None:
    """On a mounted image of a CD, for example, all files are read-only, too; chmod would not help."""
    journal = UndoJournal(tmp_path / "undo.sqlite3")
    assert write_key(song, A_MINOR, journal=journal.start(""))
    journal.close()
    disk = tmp_path / "disk"
    disk.mkdir()
    command: list[str | Path] = ["unshare", "--mount", *["--map-root-user"] * (os.geteuid() != 0), "sh", "-c", MOUNTED]
    command += ["sh", disk, song, mode, sys.executable, WRITER, journal.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    written, removed, _ = done.stdout.splitlines()  # the last one is about the file on the other disk
    assert written == removed == "the disk is mounted read-only; mount it writable, or copy the file to another disk"


@pytest.mark.parametrize("group", [0, 3456])
def test_a_file_of_the_user_keeps_its_group(group: int, as_user: Callable[..., Any], song: Path) -> None:
    assert as_user(0, group, 0o644) == ["True", "True", "the file has changed since that run, so it stays as it is"]
    assert (song.stat().st_uid, song.stat().st_gid) == (0, group)


def test_a_folder_that_gives_its_group_to_all_files(as_user: Callable[..., Any], song: Path) -> None:
    """The owner of the file is not in the group, and the copy has it as the file had."""
    os.chown(song.parent, 0, 2345)
    song.parent.chmod(0o2777)
    assert as_user(0, 2345, 0o644) == ["True", "True", "the file has changed since that run, so it stays as it is"]
    assert song.stat().st_gid == 2345


def test_the_modification_time_is_new_or_preserved(song: Path) -> None:
    then = 1_000_000_000_123_456_789
    os.utime(song, ns=(then, then))
    assert write_key(song, A_MINOR, preserve_mtime=True)
    assert song.stat().st_mtime_ns == then
    assert remove_key(song, preserve_mtime=True)
    assert song.stat().st_mtime_ns == then
    assert write_key(song, A_MINOR)
    assert song.stat().st_mtime_ns > then + 10**17


class Fault(OSError):
    def __init__(self) -> None:
        super().__init__(28, "No space left on device")


def fail(*args: Any, **kwargs: Any) -> None:
    raise Fault


@pytest.mark.parametrize(
    "place",
    [
        (os, "fsync"),
        (os, "replace"),
        (safe_write, "_copy_attributes"),
        (safe_write, "_create"),
        (safe_write, "verified_copy"),
    ],
    ids=lambda place: place[1],
)
def test_a_fault_anywhere_leaves_the_file_unchanged(
    place: tuple[ModuleType, str], song: Path, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    content, status = song.read_bytes(), song.stat()
    monkeypatch.setattr(*place, fail)
    with pytest.raises(TagError, match="no space left"):
        write_key(song, A_MINOR)
    monkeypatch.undo()
    assert song.read_bytes() == content
    assert (song.stat().st_ino, song.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert left_over() == []


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupt_leaves_no_temporary_file(
    interrupt: Any, song: Path, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    def stop(descriptor: int) -> None:
        raise interrupt

    content = song.read_bytes()
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(TagError if interrupt is MemoryError else interrupt):
        write_key(song, A_MINOR)
    assert song.read_bytes() == content
    assert left_over() == []


def test_a_directory_that_cannot_be_flushed_is_not_an_error(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise Fault
        real(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    assert write_key(song, A_MINOR)
    assert read_tags(song).text == "8A"


def test_file_and_directory_are_flushed_in_order(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        seen.append("dir" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def rename(old: Path, new: Path) -> None:
        seen.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    write_key(song, A_MINOR)
    assert seen == ["file", "replace", "dir"]


@pytest.mark.parametrize("how", ["written", "touched", "replaced", "deleted", "cut"])
def test_a_file_that_changes_during_a_write_is_not_replaced(
    how: str, song: Path, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers, samples: dict[str, bytes]
) -> None:
    other = samples["mp3"]

    def meanwhile(
        file: BinaryIO, target: io.BufferedRandom, splices: list[Splice], digest: None
    ) -> list[UnchangedRange] | None:
        parts = verified_copy(file, target, splices, digest)
        if how == "written":
            song.write_bytes(other)
        elif how == "touched":
            os.utime(song, ns=(1, 1))
        elif how == "replaced":
            song.unlink()
            song.write_bytes(other)
        elif how == "cut":
            os.truncate(song, 100)
        else:
            song.unlink()
        return parts

    monkeypatch.setattr(safe_write, "verified_copy", meanwhile)
    with pytest.raises(TagError):
        write_key(song, A_MINOR)
    assert left_over() == []
    if how in ("written", "replaced"):
        assert song.read_bytes() == other


@pytest.mark.parametrize("damage", ["audio", "tags"])
def test_a_wrong_copy_is_discarded(
    damage: str, song: Path, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    """After a full disk without an error, a flipped bit, or a bug."""
    content = song.read_bytes()

    class Disk(io.FileIO):
        def write(self, data: Any, /) -> int:
            data = bytes(data)
            if damage == "tags":
                data = data.replace(b"=8A", b"=8B")
            elif len(data) > 1000:
                data = data[:-50] + b"\0" + data[-49:]
            return super().write(data)

    monkeypatch.setattr(os, "fdopen", lambda handle, mode: io.BufferedRandom(Disk(handle, "r+b")))
    with pytest.raises(TagError, match="the copy"):
        write_key(song, A_MINOR)
    assert song.read_bytes() == content
    assert left_over() == []


def test_an_edit_that_reaches_into_the_audio_is_rejected(
    song: Path, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    """A mistake of ours in the module of a container: the copy is as it was planned, and the plan is wrong."""
    content = song.read_bytes()
    splices = flac.splices

    def reaching(file: BinaryIO, container: str, changes: Any) -> list[Splice]:
        return [*splices(file, container, changes), Splice(len(content) - 50, 1, bytes([content[-50] ^ 1]))]

    monkeypatch.setattr(flac, "splices", reaching)
    with pytest.raises(TagError, match="the audio of the copy differs from the file"):
        write_key(song, A_MINOR)
    assert song.read_bytes() == content
    assert left_over() == []


def test_a_flush_that_fails_during_the_checks_is_an_error(
    song: Path, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    """The system reports it only once: a later flush may succeed."""
    content = song.read_bytes()
    calls = []

    def once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise Fault

    monkeypatch.setattr(os, "fsync", once)
    with pytest.raises(TagError, match="no space left"):
        write_key(song, A_MINOR)
    assert song.read_bytes() == content
    assert left_over() == []


def test_the_name_of_the_copy_is_hidden_and_ours(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    replace = os.replace

    def rename(old: Path, new: Path) -> None:
        seen.append(old)
        replace(old, new)

    monkeypatch.setattr(os, "replace", rename)
    write_key(song, A_MINOR, [FieldRule()])
    assert seen[0].parent == song.parent
    assert seen[0].name.startswith(TEMPORARY_PREFIX)
    assert seen[0].name.endswith(TEMPORARY_SUFFIX)


def aged(path: Path, seconds: float | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the modification time that far back."""
    last = max(path.lstat().st_mtime, path.lstat().st_ctime)
    monkeypatch.setattr(time, "time", lambda: last + seconds)


def test_a_leftover_is_removed_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".stone-ab_d1234.tmp"
    left.write_bytes(b"half a song")
    os.utime(left, ns=(0, 0))  # the old time of modification, which the copy gets shortly before the rename
    assert safe_write.remove_leftovers([left]) == 0
    aged(left, 59, monkeypatch)
    assert safe_write.remove_leftovers([left]) == 0
    aged(left, 61, monkeypatch)
    assert safe_write.remove_leftovers([left, left]) == 1
    assert not left.exists()


@pytest.mark.parametrize("name", [".stone-.tmp", ".stone-notes.tmp", "x.stone-abcd1234.tmp", ".stone-abcd1234.tmp2"])
def test_files_with_other_names_are_not_deleted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.touch()
    aged(path, 1e6, monkeypatch)
    assert safe_write.remove_leftovers([path]) == 0
    assert path.exists()


def test_links_and_folders_are_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link, folder = tmp_path / "song", tmp_path / ".stone-abcd1234.tmp", tmp_path / ".stone-abcd1235.tmp"
    target.touch()
    link.symlink_to(target)
    folder.mkdir()
    aged(folder, 1e6, monkeypatch)
    assert safe_write.remove_leftovers([link, folder, tmp_path / ".stone-abcd1236.tmp"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [link.name, folder.name, "song"]


def test_the_copy_of_a_process_that_lives_stays(
    song: Path, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    """At any age: another run may clean up while this one writes."""
    found: list[tuple[list[str], int, list[str]]] = []
    fsync = os.fsync

    def clean(descriptor: int) -> None:
        names = left_over()
        if names and not found:
            aged(song.parent / names[0], 1e6, monkeypatch)
            found.append((names, safe_write.remove_leftovers([song.parent / names[0]]), left_over()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", clean)
    assert write_key(song, A_MINOR)
    ((before, removed, after),) = found
    assert (len(before), removed, after) == (1, 0, before)


def test_two_runs_on_one_file(song: Path, left_over: ListLeftovers) -> None:
    """The second is refused while the first has it, and what the first wrote is whole."""
    content = song.read_bytes()
    with song.open("rb") as held:
        assert locks.try_lock(held)
        with pytest.raises(TagError, match="another run is writing"):
            write_key(song, A_MINOR)
    assert song.read_bytes() == content
    assert left_over() == []
    assert write_key(song, A_MINOR)


def test_a_file_that_was_moved_away_is_called_missing(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    path.touch()
    status = path.stat()
    path.unlink()
    with pytest.raises(TagError, match="no such file or folder"):
        safe_write.refuse_unsafe(path, status)
