"""The config file as defaults of the options, read only when a command runs."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from stonecli.cli.common import EXIT_USAGE, fail
from stonecli.cli.start import COMMANDS

WITHOUT = frozenset({"config"})  # which has to work when the file is broken


class Defaults(MutableMapping[str, Any]):
    """What ``Context.default_map`` wants: for each command its defaults by name of the parameter.

    A file that cannot be used, or that names an option or a value that there is not, ends the program with one line.
    """

    def __init__(self, context: Any, command: str | None = None) -> None:
        self._context = context
        self._command = command
        self._values: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        if self._command is None:
            return {} if name in WITHOUT else Defaults(self._context, name)
        if self._values is None:
            self._values = self._read(self._command)
        return self._values[name]

    def _read(self, command: str) -> dict[str, Any]:
        from stonecli.config import ConfigError, config_path, read_config

        path = config_path()
        try:
            tables = read_config(path)
            check_tables(self._context, tables)
            table = tables.get(command, {}).items()
            options = options_of(self._context, command)
            return {str(options[name].name): plain(options[name], value) for name, value in table}
        except ConfigError as error:
            fail(f"{path}: {error}", EXIT_USAGE)

    # The rest is asked of every mapping, and of this one by nobody.

    def __setitem__(self, name: str, value: Any) -> None:
        raise NotImplementedError

    def __delitem__(self, name: str) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def options_of(context: Any, command: str) -> dict[str, Any]:
    """The options of a command by their long names without dashes; ``--help`` and such are none."""
    from stonecli.config import ConfigError

    if command not in COMMANDS or command in WITHOUT:
        raise ConfigError(f"[{command}] is no command of stone")
    options = [
        param for param in _command(context, command).params if param.param_type_name == "option" and not param.is_eager
    ]
    return {opt.removeprefix("--"): param for param in options for opt in param.opts if opt.startswith("--")}


def _command(context: Any, name: str) -> Any:
    """A command of the program, which may have been started without it."""
    commands = getattr(context.command, "commands", {})
    if name not in commands:
        from typer.main import get_command

        from stonecli.cli.app import make_app

        commands = getattr(get_command(make_app([name])), "commands", {})
    return commands[name]


def check_tables(context: Any, tables: dict[str, dict[str, Any]]) -> None:
    """Refuse what names no option, or has no value that it takes.

    Raises:
        ConfigError: with the table, the name and the reason.
    """
    from stonecli.config import ConfigError

    for command, table in tables.items():
        options = options_of(context, command)
        for name, value in table.items():
            if name not in options:
                raise ConfigError(f"[{command}] {name}: stone {command} has no such option")
            check_value(context, command, name, options[name], value)


def check_value(context: Any, command: str, name: str, option: Any, value: Any) -> None:
    """Refuse a value that the option does not take.

    Raises:
        ConfigError: with the table, the name and the reason.
    """
    from stonecli.config import ConfigError

    scalars = value if isinstance(value, list) else [value]
    kinds: tuple[type, ...] = (bool,) if option.is_flag else (str, int, float)
    if isinstance(value, list) != bool(option.multiple) or not all(
        isinstance(item, kinds) and (option.is_flag or not isinstance(item, bool)) for item in scalars
    ):
        wanted = "true or false" if option.is_flag else "a list" if option.multiple else "one value"
        raise ConfigError(f"[{command}] {name}: wants {wanted}")
    try:
        option.process_value(context, plain(option, value))
    except Exception as error:  # click's own, one for each kind of value
        raise ConfigError(f"[{command}] {name}: {getattr(error, 'message', value)!s}") from error


def plain(option: Any, value: Any) -> Any:
    """The value as the command line would have it: text, with ``~`` as the shell reads it."""
    if option.is_flag:
        return value
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else str(value)
