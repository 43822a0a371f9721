"""Atomic replace of a music file by a changed copy.

The copy is created next to the file under a hidden name (``.stone-*.tmp``), verified while it is written, given the
owner, mode and extended attributes of the file, flushed to the disk and renamed over the file. If anything fails before
the rename, even the power, the file is unchanged; after the rename, it is the new one. The next run removes copies that
a crash left behind (:func:`remove_leftovers`).

An error does not tell whether the rename took place: a network share may report an error for a rename that it did, and
Ctrl-C may arrive just after it. So the record is only deleted from the undo journal when the file is provably
unchanged.
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
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

from stonecli.errors import TagError, reason
from stonecli.library.music_file import refuse_changed
from stonecli.library.walk import TEMPORARY_PREFIX as PREFIX
from stonecli.library.walk import TEMPORARY_SUFFIX as SUFFIX
from stonecli.tags.edit.digest import Digest
from stonecli.tags.edit.splice import Splice, UnchangedRange, file_size, forward_and_inverse, is_spliced
from stonecli.tags.edit.verified_copy import verified_copy
from stonecli.tags.undo.record import Undo, file_digest, spans_after, spans_before
from stonecli.util.locks import try_lock

_COPY_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}" + re.escape(SUFFIX))
_LETTERS = string.ascii_lowercase + string.digits
_MIN_AGE_SECONDS = 60.0  # a copy that was changed more recently may still be in use
_PERMISSIONS = 0o777  # mode bits that decide who may use a file; a share may clear the other bits
_TIME_STEP_NS = 2 * 10**9  # FAT stores times in steps of 2 s
_READ_ONLY_DISK = "the disk is mounted read-only; mount it writable, or copy the file to another disk"
_CLOSED_FOLDER = "no permission to write in its folder, where stone writes a copy first; make the folder writable"


class Journal(Protocol):
    """Records changes: :class:`stonecli.tags.undo.journal.JournalRun`."""

    def add(self, path: Path, undo: Undo) -> int:
        """Record a change that is about to be made, and return the number of the record, which is on the disk.

        Raises:
            TagError: the record could not be written.
        """

    def forget(self, number: int) -> None:
        """Delete the record of a change that was provably not made."""


def refuse_unsafe(path: Path, status: os.stat_result) -> None:
    """Raise an error if the file at ``path``, which has this status, must not be replaced.

    Raises:
        TagError: the disk is mounted read-only, the file is write-protected (which counts for root as well), the user
            may not write it (although write permission for the folder would be enough to replace it), or it has other
            hard links.
    """
    is_protected = not status.st_mode & stat.S_IWUSR
    if is_protected or not os.access(path, os.W_OK):
        if not os.access(path, os.F_OK):  # moved or removed since the status was read
            raise TagError(reason(OSError(errno.ENOENT, os.strerror(errno.ENOENT))))
        if _is_mounted_read_only(path):
            raise TagError(_READ_ONLY_DISK)
        raise TagError(
            "the file is read-only; make it writable first" if is_protected else "no permission to write the file"
        )
    if status.st_nlink > 1:
        raise TagError("the file has other hard links, which would keep the old content; replace it with a copy first")


def _is_mounted_read_only(path: Path) -> bool:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def check_writable(path: Path, status: os.stat_result, *, preserve_mtime: bool = False) -> None:
    """Raise an error if the file at ``path``, which has this status and is no symbolic link, cannot be replaced.

    An empty test file shows whether a copy in the same folder can get the owner, permissions and, with
    ``preserve_mtime``, the modification time of the file. One test is made per folder, owner and mode. Where the system
    supports it, the test file has no name and the folder is not changed; otherwise it is removed at once.

    Raises:
        TagError: :func:`refuse_unsafe` refuses the file, or a copy cannot be created in its folder.
    """
    refuse_unsafe(path, status)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise TagError(_CLOSED_FOLDER)  # as creating the copy would
    _try_folder(path.parent, status.st_dev, status.st_mode, status.st_uid, status.st_gid, preserve_mtime)


@functools.lru_cache(maxsize=1024)  # errors are not cached
def _try_folder(folder: Path, device: int, mode: int, uid: int, gid: int, preserve_mtime: bool) -> None:
    temporary = None
    try:
        handle = os.open(folder, os.O_RDWR | os.O_TMPFILE, mode & _PERMISSIONS)  # type: ignore[attr-defined,unused-ignore]
    except (OSError, AttributeError):  # a network share, or a system other than Linux
        handle, temporary = _create(folder, mode)
    try:
        _set_owner_and_mode(temporary or handle, mode, uid, gid)
        if preserve_mtime:
            _set_times(temporary or handle, (0, 10**18))
    finally:
        os.close(handle)
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink()


def replace_file(
    path: Path,
    file: BinaryIO,
    before: os.stat_result,
    splices: Sequence[Splice],
    check: Callable[[BinaryIO, Sequence[UnchangedRange]], None],
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
) -> os.stat_result:
    """Replace the file at ``path``, open as ``file``, by a copy with the splices applied; returns the copy's status.

    Args:
        path: the file itself, not a symbolic link to it.
        file: the same file, open for reading; closed before the rename where the system requires it.
        before: its status when it was opened.
        splices: the edits.
        check: called with the finished copy and the ranges of it that were verified; raises if the copy is wrong.
        preserve_mtime: keep the old modification time.
        journal: gets the undo record before the rename.

    Raises:
        TagError: the file has changed since ``before``, its owner, permissions or attributes could not be kept,
            another run is writing it, or the copy cannot be created.
        OSError: the copy cannot be written or renamed. Unless the journal has a record, the file is unchanged.
    """
    if not try_lock(file):
        raise TagError("another run is writing the file; try again when it has ended")
    handle, temporary = _create(path.parent, before.st_mode)
    record = number = None
    is_tried = False
    try:
        with os.fdopen(handle, "w+b") as copy, ThreadPoolExecutor(1) as executor:
            try_lock(copy)  # so that no other run removes it as a leftover
            _set_owner_and_mode(temporary, before.st_mode, before.st_uid, before.st_gid)
            forward, inverse = forward_and_inverse(file, splices)
            rest = None if journal is None else Digest()
            verified = verified_copy(file, copy, forward, rest)
            _copy_attributes(path, temporary, before)
            if preserve_mtime:
                _set_times(temporary, (before.st_atime_ns, before.st_mtime_ns))
            flushed = executor.submit(os.fsync, copy.fileno())  # while the tags are read back and the record is written
            if verified is None or not is_spliced(copy, file, splices, verified):
                refuse_changed(path.stat(), before)
                raise TagError("the copy does not contain the bytes that were written")
            check(copy, verified)
            if journal is not None and rest is not None:
                record = _undo(file, copy, inverse, verified, rest)
                number = journal.add(path, record)
            flushed.result()
            copied = os.fstat(copy.fileno())
            if os.name == "posix":
                refuse_changed(path.stat(), before)
                is_tried = True
                _rename(temporary, path, copied)
                copied = os.fstat(copy.fileno())  # the rename has changed a time of it
        if os.name != "posix":  # Windows cannot rename an open file, and holds no lock here that closing would release
            file.close()
            refuse_changed(path.stat(), before)
            is_tried = True
            _rename(temporary, path, copied)
            copied = path.stat()
    except BaseException:
        is_removed = _discard(temporary, path if is_tried else None)
        if journal is not None and record and number is not None and is_removed and _is_unchanged(path, before, record):
            journal.forget(number)
        raise
    _sync_directory(path.parent)
    return copied


def remove_leftovers(paths: Iterable[Path]) -> int:
    """Remove the files among ``paths`` that an earlier run left behind, and return their number.

    Files with other names, files that are not regular, that were changed in the last minute, or that a running process
    has locked stay. Nothing is raised: what cannot be removed now may be removed by the next run.
    """
    removed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            last_change = max(status.st_mtime, status.st_ctime)
            is_ours = _COPY_NAME.fullmatch(path.name) and stat.S_ISREG(status.st_mode)
            if not is_ours or time.time() - last_change < _MIN_AGE_SECONDS:
                continue
            with path.open("rb") as file:
                if not try_lock(file):
                    continue
                if os.name == "posix":
                    path.unlink()
            path.unlink(missing_ok=True)  # on Windows this fails while a process has it open, as it should
            removed += 1
    return removed


def _create(folder: Path, mode: int) -> tuple[int, Path]:
    """Create an empty file in the folder and return its descriptor and path.

    It has ``mode`` from the start, as far as the umask allows, since a share may refuse to change it later.

    Raises:
        TagError: it cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        path = folder / f"{PREFIX}{''.join(secrets.choice(_LETTERS) for _ in range(8))}{SUFFIX}"
        try:
            return os.open(path, flags, mode & _PERMISSIONS), path
        except FileExistsError:
            continue
        except OSError as error:
            texts = {errno.EACCES: _CLOSED_FOLDER, errno.EROFS: _READ_ONLY_DISK}
            raise TagError(texts.get(error.errno or 0, reason(error))) from error


def _rename(temporary: Path, path: Path, copied: os.stat_result) -> None:
    """Rename the copy, which has the status ``copied``, over the file.

    Raises:
        OSError: the rename failed. One that was reported as failed, but took place, is not an error.
    """
    try:
        os.replace(temporary, path)  # noqa: PTH105
    except OSError:
        if _is_copy(path, copied) and not os.path.lexists(temporary):
            return
        if os.path.lexists(path):
            raise
        try:
            os.replace(temporary, path)  # noqa: PTH105 (the share removed the file and then failed)
        except OSError as error:
            raise TagError(
                f"{reason(error)}: the file is gone, its copy is {temporary.name}; rename that to {path.name}"
            ) from error


def _is_copy(path: Path, copied: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        now = path.lstat()
        # Some network shares have no inode numbers.
        return now.st_ino != 0 and os.path.samestat(now, copied) and now.st_size == copied.st_size
    return False


def _discard(temporary: Path, path: Path | None) -> bool:
    """Whether the copy existed and was removed; after that, a delayed rename cannot replace the file any more.

    If there is no file at ``path``, because a failed rename removed it, the copy stays: it is all that is left.
    """
    if path is not None and not os.path.lexists(path):
        return False
    try:
        temporary.unlink()
    except OSError:
        return False
    return True


def _is_unchanged(path: Path, before: os.stat_result, undo: Undo) -> bool:
    """Whether the file is provably unchanged, by inode, size and content."""
    try:
        now = path.lstat()
        if not os.path.samestat(now, before) or now.st_size != before.st_size:
            return False  # do not open it: it may be a pipe
        with path.open("rb") as file:
            return os.path.samestat(os.fstat(file.fileno()), before) and undo.is_before(file)
    except (OSError, TagError):
        return False


def _undo(
    file: BinaryIO, copy: BinaryIO, inverse: Sequence[Splice], verified: Sequence[UnchangedRange], rest: Digest
) -> Undo:
    """The undo record, after a check that it restores the file byte for byte."""
    if not is_spliced(file, copy, inverse, [UnchangedRange(same.new, same.old, same.length) for same in verified]):
        raise TagError("the change could not be undone")
    before = file_size(file), file_digest(rest, file, spans_before(inverse))
    after = file_size(copy), file_digest(rest, copy, spans_after(inverse))
    return Undo(before, after, tuple(inverse))


def _set_owner_and_mode(temporary: Path | int, mode: int, uid: int, gid: int) -> None:
    """Set owner, group and mode of a copy, given by its path or descriptor.

    What counts is what the system shows afterwards, not what a call returned. So it works on a share that has a fixed
    owner or mode for all files.

    Raises:
        TagError: the copy would have another owner or group, or other permissions.
        OSError: the copy does not exist.
    """
    if sys.platform == "win32" or os.name != "posix":  # the second as the tests set it
        with contextlib.suppress(OSError):
            os.chmod(temporary, stat.S_IMODE(mode))  # noqa: PTH101 (or a descriptor)
        return
    # Only root may change the owner; members of the group may set the group.
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


def _set_times(temporary: Path | int, times: tuple[int, int]) -> None:
    """Set the times of access and modification of a copy, in nanoseconds.

    Raises:
        TagError: the system shows another modification time afterwards.
    """
    with contextlib.suppress(OSError):
        os.utime(temporary, ns=times)
    found = os.stat(temporary).st_mtime_ns  # noqa: PTH116 (or a descriptor)
    if abs(found - times[1]) > _TIME_STEP_NS:
        raise TagError("the modification time cannot be kept here; try without --preserve-mtime")


def _copy_attributes(path: Path, temporary: Path, before: os.stat_result) -> None:
    """Copy the extended attributes and flags of the file, if it has any, to the copy.

    Raises:
        TagError: an attribute that a user or program set, or an access control list, would be lost.
    """
    if sys.platform == "linux":
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
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            if os.getxattr(temporary, name) == value:
                return
    raise TagError(f"the file would lose its attribute {name!a}")


def _sync_directory(path: Path) -> None:
    """Flush the rename to the disk; on a file system without support for that it still took place: no error."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
