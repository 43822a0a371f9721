"""The user's own defaults: a TOML file with a table a command, ``[tag]`` with ``notation = "musical"`` and so on.

What the names and values mean, the command line knows; here they are only read and written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stonecli.errors import StoneError
from stonecli.folders import config_folder

FILE_NAME = "config.toml"
MAX_BYTES = 1 << 20


class ConfigError(StoneError):
    """The file cannot be used; it is as it was."""


def config_path() -> Path:
    """Where the file is, or would be."""
    return config_folder() / FILE_NAME


def read_config(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of the file at ``path``; none where there is no file.

    Raises:
        ConfigError: it cannot be read, or is not made of tables of plain values.
    """
    import tomllib  # here: whoever has no such file can do without

    try:
        tables = tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{name!r} stands in no table: write [tag] or another command above it")
    return tables


def change_config(path: Path, table: str, name: str, value: Any) -> bool:
    """Set ``name`` in ``table`` to ``value``, or take it out where that is None; comments and order stay.

    Returns:
        Whether anything was there to be taken out, or the value was set.

    Raises:
        ConfigError: the file cannot be read.
        OSError: it cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from stonecli.report.whole_file import whole_file

    read_config(path)
    try:
        document = tomlkit.parse(_text(path))
        if value is None:
            if name not in document.get(table, {}):
                return False
            del document[table][name]
        else:
            document.setdefault(table, tomlkit.table())[name] = value
        text = tomlkit.dumps(document)
    except (TOMLKitError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path.resolve()) as file:  # a link to a file kept elsewhere stays a link
        file.write(text)
    return True


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            if path.exists():
                raise ConfigError("not a file")
            return ""
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError("too large")
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(error.strerror or type(error).__name__) from error
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8") from error
