"""Where stone keeps what is its own: the undo journal, the result cache, added models, and the user's defaults."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_OWN = ("undo.sqlite3", "results.sqlite3", "cluster", "downloads", "models", "config.toml")  # how names of ours begin


def state_folder() -> Path:
    """The folder of the undo journal; ``STONE_STATE_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_STATE_DIR") or platformdirs.user_state_path("stone", appauthor=False))


def cache_folder() -> Path:
    """The folder of the result cache; ``STONE_CACHE_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_CACHE_DIR") or platformdirs.user_cache_path("stone", appauthor=False))


def data_folder() -> Path:
    """The folder of the models that were added; ``STONE_DATA_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_DATA_DIR") or platformdirs.user_data_path("stone", appauthor=False))


def config_folder() -> Path:
    """The folder of the config file; ``STONE_CONFIG_DIR`` moves it. It need not be there yet."""
    import platformdirs

    return Path(os.environ.get("STONE_CONFIG_DIR") or platformdirs.user_config_path("stone", appauthor=False))


def make_private_folder(folder: Path) -> None:
    """Make a folder that only the user can look into, or close one that stone alone has filled.

    A folder that holds anything else stays as it is: ``STONE_CACHE_DIR=/tmp`` must not close ``/tmp``.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "posix":
        return
    with suppress(OSError):
        mode = stat.S_IMODE(folder.stat().st_mode)
        entries = list(folder.iterdir()) if mode & 0o077 else []
        if entries and all(entry.name.startswith(_OWN) for entry in entries):
            folder.chmod(mode & 0o700)


def make_private_database(path: Path) -> None:
    """Make an empty SQLite file that only the user can read, or close the one that is there.

    SQLite gives the files beside it the same permissions. Nothing is raised: opening it says what is wrong.
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
