"""The config file: TOML with one table of defaults per command, such as ``[tag]`` with ``notation = "musical"``.

This module only reads and writes the file; the command line checks names and values.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from stonecli.errors import ConfigError, reason
from stonecli.util.app_dirs import config_folder

FILE_NAME = "config.toml"
MAX_BYTES = 1 << 20


def config_path() -> Path:
    """The path of the config file, which may not exist."""
    return config_folder() / FILE_NAME


def read_config(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of the file at ``path``; empty if there is no file.

    Raises:
        ConfigError: the file cannot be read, or a value is outside a table.
    """
    import tomllib  # here, because most users have no config file

    try:
        tables = tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _not_toml(error) from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"{name!r} is outside a table; move it below [tag] or the like, or run: stone config unset {name}"
            )
    return tables


def change_config(path: Path, table: str, name: str, value: Any) -> bool:
    """Set ``name`` in ``table`` to ``value``, or remove it if ``value`` is None; comments and order are preserved.

    An empty ``table`` means the top level of the file, where names can only be removed.

    Returns:
        True if the file was changed, False if there was nothing to remove.

    Raises:
        ConfigError: the file cannot be read.
        OSError: it cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from stonecli.util.atomic_file import atomic_text_file

    try:
        document = tomlkit.parse(_text(path))
        if value is None:
            names: Any = document if not table else document.get(table, {})
            if not isinstance(names, dict) or name not in names:
                return False
            del names[name]
        else:
            read_config(path)
            document.setdefault(table, tomlkit.table())[name] = value
        text = tomlkit.dumps(document)
    except (TOMLKitError, RecursionError) as error:
        raise _not_toml(error) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text_file(path.resolve()) as file:  # so that a symbolic link stays a link
        file.write(text)
    return True


def _not_toml(error: Exception) -> ConfigError:
    return ConfigError(f"not valid TOML ({reason(error)}); correct the file or delete it")


def _text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("is not a regular file; delete it")
        if status.st_size > MAX_BYTES:
            raise ConfigError(f"is larger than {MAX_BYTES >> 20} MiB; delete it")
        # Editors on Windows put a byte order mark in front, which is not TOML.
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""
    except OSError as error:  # also if its folder may not be read, or is a file
        raise ConfigError(reason(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8; save it in that encoding or delete it") from error
