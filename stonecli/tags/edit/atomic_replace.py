"""Replaces a file by a changed copy in one step, or not at all.

The copy is made next to the file under a hidden name (``.stone-*.tmp``), verified while it is written, given the
owner, mode and extended attributes of the file, flushed to the disk and renamed over it. Whatever fails before the
rename, including the power, the file is the old one, byte for byte; after it, the new one. The next run removes copies
that a crash left behind (:func:`remove_leftovers`).

An error does not say whether the rename took place: a network share may report one for a rename that it has done, and
Ctrl-C may arrive just after it. So the record in the undo journal is only deleted when the file is provably the old
one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
import stat
import string
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

from stonecli.errors import TagError
from stonecli.library.walk import TEMPORARY_PREFIX as PREFIX
from stonecli.library.walk import TEMPORARY_SUFFIX as SUFFIX
from stonecli.tags.edit.digest import Digest
from stonecli.tags.edit.splice import Kept, Splice, both_ways, file_size, is_spliced
from stonecli.tags.edit.verified_copy import checked_copy
from stonecli.tags.undo.record import Undo, places_after, places_before, whole_digest
from stonecli.util.locks import take_lock

CHANGED_MEANWHILE = "the file was changed by another program meanwhile"

_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}" + re.escape(SUFFIX))  # of a copy
_LETTERS = string.ascii_lowercase + string.digits
_LEAST_AGE = 60.0  # seconds without a change, before a copy counts as left over
_PERMISSIONS = 0o777  # mode bits that decide who may use a file; a share may clear the others
_TIME_STEP_NS = 2 * 10**9  # FAT stores times in steps of 2 s


class Journal(Protocol):
    """Records changes: :class:`stonecli.tags.undo.journal.JournalRun`."""

    def add(self, path: Path, undo: Undo) -> int:
        """The number of a record that is on the disk now, of a change that is about to be made.

        Raises:
            TagError: it could not be written.
        """

    def forget(self, number: int) -> None:
        """Delete the record of a change that was provably not made."""


def refuse_unsafe(path: Path, status: os.stat_result) -> None:
    """Nothing, if the file at ``path``, which has this status, may be replaced.

    Raises:
        TagError: it is write-protected (which binds root as well), the user may not write it (the right to write its
            folder is enough to replace it, and not meant), or it has other hard links.
    """
    if not status.st_mode & stat.S_IWUSR:
        raise TagError("the file is read-only")
    if not os.access(path, os.W_OK):
        raise TagError("the file is not yours to write")
    if status.st_nlink > 1:
        raise TagError("the file has other hard links, which would keep the old content")


def check_writable(path: Path, *, preserve_mtime: bool = False) -> None:
    """Nothing, if the file at ``path``, or that the link there leads to, seems to be one that may be replaced.

    An empty file shows whether a copy in the same folder can have the owner, permissions and, with ``preserve_mtime``,
    the time of the file. It is tried once per folder, owner and mode. Where the system can do that, the file has no
    name and the folder stays untouched; else it is removed at once.

    Raises:
        TagError: :func:`refuse_unsafe` refuses it, or no copy of it can be made in its folder.
        OSError: it cannot be looked at.
    """
    target = Path(os.path.realpath(path))
    status = target.stat()
    refuse_unsafe(target, status)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise TagError(os.strerror(errno.EACCES))  # as the attempt would say
    _try_folder(target.parent, status.st_dev, status.st_mode, status.st_uid, status.st_gid, preserve_mtime)


@functools.lru_cache(maxsize=1024)  # errors are not cached
def _try_folder(folder: Path, device: int, mode: int, uid: int, gid: int, preserve_mtime: bool) -> None:
    temporary = None
    try:
        try:
            handle = os.open(folder, os.O_RDWR | os.O_TMPFILE, mode & _PERMISSIONS)  # type: ignore[attr-defined,unused-ignore]
        except (OSError, AttributeError):  # a share, or not on Linux
            handle, temporary = _create(folder, mode)
    except OSError as error:
        raise TagError(error.strerror or "no copy can be made in its folder") from error
    try:
        _keep_owner_and_mode(temporary or handle, mode, uid, gid)
        if preserve_mtime:
            _keep_time(temporary or handle, (0, 10**18))
    finally:
        os.close(handle)
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink()


def refuse_changed(now: os.stat_result, before: os.stat_result) -> None:
    """Nothing, if a file with this status is still what it was when it had the other.

    Raises:
        TagError: it is another, or was written since.
    """

    def identity(status: os.stat_result) -> tuple[int, ...]:
        # A tag written in place, with the time set back, shows in this alone. Windows has another time by this name.
        changed = status.st_ctime_ns if os.name == "posix" else 0
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed

    if identity(now) != identity(before):
        raise TagError(CHANGED_MEANWHILE)


def replace_file(
    path: Path,
    file: BinaryIO,
    before: os.stat_result,
    splices: Sequence[Splice],
    check: Callable[[BinaryIO, Sequence[Kept]], None],
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
) -> None:
    """Replaces the file at ``path``, open as ``file``, by a copy with the splices made.

    Args:
        path: the file itself, not a symbolic link to it.
        file: the same file, open for reading; closed before the rename where the system asks for that.
        before: its status when it was first looked at.
        splices: the changes.
        check: called with the finished copy, and with the ranges that were read back from it and found to be those of
            the file; raises if the copy is not right.
        preserve_mtime: keep the old time of modification.
        journal: gets the record of how to go back, before the rename.

    Raises:
        TagError: the file has changed since ``before``, its owner, permissions or attributes could not be kept, or
            another run is writing it.
        OSError: the copy cannot be written or put in place. Unless the journal has a record, the file is the old one.
    """
    if not take_lock(file):
        raise TagError("another run is writing the file")
    handle, temporary = _create(path.parent, before.st_mode)
    record = number = None
    is_tried = False
    try:
        with os.fdopen(handle, "w+b") as copy, ThreadPoolExecutor(1) as beside:
            take_lock(copy)  # so that no other run takes it for a leftover
            _keep_owner_and_mode(temporary, before.st_mode, before.st_uid, before.st_gid)
            there, back = both_ways(file, splices)
            rest = None if journal is None else Digest()
            known = checked_copy(file, copy, there, rest)
            _keep_attributes(path, temporary, before)
            if preserve_mtime:
                _keep_time(temporary, (before.st_atime_ns, before.st_mtime_ns))
            flushed = beside.submit(os.fsync, copy.fileno())  # while the tags are read back and the journal is written
            if known is None or not is_spliced(copy, file, splices, known):
                refuse_changed(path.stat(), before)
                raise TagError("the bytes of the copy are not those that were written")
            check(copy, known)
            if journal is not None and rest is not None:
                record = _undo(file, copy, back, known, rest)
                number = journal.add(path, record)
            flushed.result()
            copied = os.fstat(copy.fileno())
            if os.name == "posix":
                refuse_changed(path.stat(), before)
                is_tried = True
                _rename(temporary, path, copied)
        if os.name != "posix":  # Windows renames no open file, and has no locks that would have to be held on to
            file.close()
            refuse_changed(path.stat(), before)
            is_tried = True
            _rename(temporary, path, copied)
    except BaseException:
        is_removed = _discard(temporary, path if is_tried else None)
        if journal is not None and record and number is not None and is_removed and _is_old(path, before, record):
            journal.forget(number)
        raise
    _sync_directory(path.parent)


def remove_leftovers(paths: Iterable[Path]) -> int:
    """The number of files removed: those of ``paths`` that an earlier run has left behind.

    What is not named as our copies are, is no regular file, was changed in the last minute, or is held by a running
    process, stays. Nothing is raised: what cannot be removed now may be the next time.
    """
    removed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            last_change = max(status.st_mtime, status.st_ctime)
            is_ours = _NAME.fullmatch(path.name) and stat.S_ISREG(status.st_mode)
            if not is_ours or time.time() - last_change < _LEAST_AGE:
                continue
            with path.open("rb") as file:
                if not take_lock(file):
                    continue
                if os.name == "posix":
                    path.unlink()
            path.unlink(missing_ok=True)  # on Windows this fails where a process has it open, which is what we want
            removed += 1
    return removed


def _create(folder: Path, mode: int) -> tuple[int, Path]:
    """A new empty file in the folder: its descriptor and path. It has ``mode`` from the start, as far as the umask
    allows: a share may refuse to change it later.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        path = folder / f"{PREFIX}{''.join(secrets.choice(_LETTERS) for _ in range(8))}{SUFFIX}"
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags, mode & _PERMISSIONS), path


def _rename(temporary: Path, path: Path, copied: os.stat_result) -> None:
    """Put the copy, which has this status, in the place of the file.

    Raises:
        OSError: it is not there. A rename that was reported to fail, and was done, is no error.
    """
    try:
        os.replace(temporary, path)  # noqa: PTH105
    except OSError:
        if _is_copy(path, copied) and not os.path.lexists(temporary):
            return
        if os.path.lexists(path):
            raise
        try:
            os.replace(temporary, path)  # noqa: PTH105 (the share has removed the file, and then failed)
        except OSError as error:
            raise TagError(
                f"{error.strerror}: the file is gone, its copy is {temporary.name}; rename that to {path.name}"
            ) from error


def _is_copy(path: Path, copied: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        now = path.lstat()
        # Some network shares number no files.
        return now.st_ino != 0 and os.path.samestat(now, copied) and now.st_size == copied.st_size
    return False


def _discard(temporary: Path, path: Path | None) -> bool:
    """Whether the copy was there and is removed, after which no late rename can put it in the place of the file.

    It stays where there is no file at ``path`` any more, which a rename may have removed: then it is all that is left.
    """
    if path is not None and not os.path.lexists(path):
        return False
    try:
        temporary.unlink()
    except OSError:
        return False
    return True


def _is_old(path: Path, before: os.stat_result, undo: Undo) -> bool:
    """Whether the file is provably the one that it was: by inode, size and content."""
    try:
        now = path.lstat()
        if not os.path.samestat(now, before) or now.st_size != before.st_size:
            return False  # not opened: it may be a pipe
        with path.open("rb") as file:
            return os.path.samestat(os.fstat(file.fileno()), before) and undo.is_before(file)
    except (OSError, TagError):
        return False


def _undo(file: BinaryIO, copy: BinaryIO, back: Sequence[Splice], known: Sequence[Kept], rest: Digest) -> Undo:
    """The record of how to go back, which has been tried: it leads to the file, byte for byte."""
    if not is_spliced(file, copy, back, [Kept(same.new, same.old, same.length) for same in known]):
        raise TagError("the change could not be taken back")
    before = file_size(file), whole_digest(rest, file, places_before(back))
    after = file_size(copy), whole_digest(rest, copy, places_after(back))
    return Undo(before, after, tuple(back))


def _keep_owner_and_mode(temporary: Path | int, mode: int, uid: int, gid: int) -> None:
    """Give a copy, named by its path or descriptor, this owner, group and mode.

    What counts is what the system then shows, not what a call returned. So a share that gives all files one owner or
    mode, and lets nobody change them, is no obstacle.

    Raises:
        TagError: the copy would have another owner or group, or other permissions.
        OSError: the copy is gone.
    """
    if os.name != "posix":
        with contextlib.suppress(OSError):
            os.chmod(temporary, stat.S_IMODE(mode))  # noqa: PTH101 (or a descriptor)
        return
    # Only root may give files away; a member of the group can keep the group.
    for owner in ((-1, gid), (uid, -1)):
        with contextlib.suppress(OSError):
            os.chown(temporary, *owner)
    with contextlib.suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(mode))  # noqa: PTH101 (or a descriptor)
    now = os.stat(temporary)  # noqa: PTH116 (or a descriptor)
    if (now.st_uid, now.st_gid) != (uid, gid):
        raise TagError("the file would change its owner or group")
    if (now.st_mode ^ mode) & _PERMISSIONS:
        wanted, found = mode & _PERMISSIONS, now.st_mode & _PERMISSIONS
        raise TagError(f"the file would change its permissions from {wanted:o} to {found:o}")


def _keep_time(temporary: Path | int, times: tuple[int, int]) -> None:
    """Give a copy these times of access and modification, in nanoseconds.

    Raises:
        TagError: the system shows another time of modification.
    """
    with contextlib.suppress(OSError):
        os.utime(temporary, ns=times)
    found = os.stat(temporary).st_mtime_ns  # noqa: PTH116 (or a descriptor)
    if abs(found - times[1]) > _TIME_STEP_NS:
        raise TagError("the modification time cannot be kept here; try without --preserve-mtime")


def _keep_attributes(path: Path, temporary: Path, before: os.stat_result) -> None:
    """Give a copy the extended attributes and flags of the file, as far as there are any.

    Raises:
        TagError: an attribute that a user or program has set, or an access list, would be lost.
    """
    if hasattr(os, "listxattr"):
        names = []
        with contextlib.suppress(OSError):
            names = os.listxattr(path)
        for name in names:
            value = None
            with contextlib.suppress(OSError):
                value = os.getxattr(path, name)
                os.setxattr(temporary, name, value)
            if value is not None and name.startswith(("user.", "system.posix_acl")):
                _check_attribute(temporary, name, value)
    if flags := getattr(before, "st_flags", 0):
        with contextlib.suppress(OSError):
            os.chflags(temporary, flags)  # type: ignore[attr-defined,unused-ignore]  # not on Linux


def _check_attribute(temporary: Path, name: str, value: bytes) -> None:
    with contextlib.suppress(OSError):
        if os.getxattr(temporary, name) == value:
            return
    raise TagError(f"the file would lose its attribute {name!a}")


def _sync_directory(path: Path) -> None:
    """Makes the rename last; a file system that cannot do that has still done the rename, so nothing is raised."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
