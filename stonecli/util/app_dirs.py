"""The folders of stone's own files: the undo journal, the result cache, added models, and the config file."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

ADVICE = "check its permissions and the free disk space, or move it away"
"""The advice in errors of the undo journal and the result cache."""
_OWN_PREFIXES = ("undo.sqlite3", "results.sqlite3", "cluster", "downloads", "models", "config.toml", ".lock")


def state_folder() -> Path:
    """The folder of the undo journal, or ``STONE_STATE_DIR`` if set. It may not exist yet."""
    import platformdirs

    return Path(os.environ.get("STONE_STATE_DIR") or platformdirs.user_state_path("stone", appauthor=False))


def cache_folder() -> Path:
    """The folder of the result cache, or ``STONE_CACHE_DIR`` if set. It may not exist yet."""
    import platformdirs

    return Path(os.environ.get("STONE_CACHE_DIR") or platformdirs.user_cache_path("stone", appauthor=False))


def data_folder() -> Path:
    """The folder of the models that the user added, or ``STONE_DATA_DIR`` if set. It may not exist yet."""
    import platformdirs

    return Path(os.environ.get("STONE_DATA_DIR") or platformdirs.user_data_path("stone", appauthor=False))


def config_folder() -> Path:
    """The folder of the config file, or ``STONE_CONFIG_DIR`` if set. It may not exist yet."""
    import platformdirs

    return Path(os.environ.get("STONE_CONFIG_DIR") or platformdirs.user_config_path("stone", appauthor=False))


def make_private_folder(folder: Path) -> None:
    """Create a folder that only the user can access; an existing one that earlier versions made is made private.

    That is a folder with only stone's files in which nobody else may write. The mode of any other folder is not
    changed: ``STONE_CACHE_DIR=/tmp`` must not make ``/tmp`` private, not even in a container where nothing else is in
    it, and neither must a folder that a group shares become one user's.

    Raises:
        OSError: it cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:  # "file exists" would be a riddle
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
    if os.name != "posix":
        return
    with suppress(OSError):
        mode = stat.S_IMODE(folder.stat().st_mode)
        is_shared = mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISVTX | stat.S_ISGID | stat.S_ISUID)
        entries = list(folder.iterdir()) if mode & 0o077 and not is_shared else []
        if entries and all(entry.name.startswith(_OWN_PREFIXES) for entry in entries):
            folder.chmod(mode & 0o700)


def make_private_database(path: Path) -> None:
    """Create an empty SQLite file that only the user can read, or make an existing one private.

    SQLite gives its other files, beside this one, the same permissions. Errors are ignored here: opening the database
    reports them.
    """
    if os.name != "posix":
        return
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(OSError):
            status = name.stat()
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                name.chmod(stat.S_IMODE(status.st_mode) & 0o700)
