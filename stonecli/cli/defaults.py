"""The defaults of the options from the config file, which is read only when a command runs."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from stonecli.cli.common import EXIT_USAGE, fail
from stonecli.cli.help import COMMANDS
from stonecli.cli.usage import source_of, what_is_wrong

WITHOUT = frozenset({"config"})  # works even if the file is invalid
SHARED = frozenset({"notation"})  # options that all commands take from [tag] if they have no setting of their own
EXCLUSIVE = {  # by command: a parameter, and those that cannot be combined with it; all are off by default
    "tag": (
        ("remove", ("overwrite", "bpm", "bpm_range")),
        ("as_json", ("quiet",)),
        ("cluster", ("jobs", "playlist", "rekordbox", "html")),
    ),
    "convert": (("as_json", ("quiet",)),),
    "compare": (("as_json", ("quiet",)),),
    "watch": (("as_json", ("quiet",)),),
    "analyze": (("as_json", ("quiet",)),),
    "mix": (("as_json", ("quiet",)), ("compatible", ("start", "end", "at", "playlist", "rekordbox"))),
    "undo": (("as_json", ("quiet",)), ("list_runs", ("dry_run", "quiet"))),
}


class Defaults(MutableMapping[str, Any]):
    """The mapping for ``Context.default_map``: the defaults of each command by parameter name.

    If the file cannot be read, or a setting of the current command is invalid, the program ends with one line. Invalid
    settings of other commands are ignored.
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
        from stonecli.errors import ConfigError
        from stonecli.util.config_file import config_path, read_config

        path = config_path()
        try:
            tables, options = read_config(path), options_of(self._context, command)
            table = tables.get(command, {})
            for name, value in table.items():
                check_stored_setting(self._context, command, name, value)
            for name in SHARED & options.keys() & tables.get("tag", {}).keys() - table.keys():
                check_stored_setting(self._context, "tag", name, tables["tag"][name])
                table = {**table, name: tables["tag"][name]}
            return {str(options[name].name): as_typed(options[name], value) for name, value in table.items()}
        except ConfigError as error:
            fail(f"{path}: {error}", EXIT_USAGE)

    # Required by the protocol; not used.

    def __setitem__(self, name: str, value: Any) -> None:
        raise NotImplementedError

    def __delitem__(self, name: str) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def prefer_the_command_line(context: Any) -> None:
    """Turn off the configured options that cannot be combined with what is on the command line."""
    if source_of(context, "null") == "DEFAULT_MAP" and not _reads_a_list(context):
        context.params["null"] = False
    for name, others in EXCLUSIVE.get(context.command.name, ()):
        for given, excluded in ((name, others), *((other, (name,)) for other in others)):
            if context.params.get(given) and source_of(context, given) == "COMMANDLINE":
                for option in excluded:
                    if source_of(context, option) == "DEFAULT_MAP":
                        context.params[option] = False if isinstance(context.params[option], bool) else None


def _reads_a_list(context: Any) -> bool:
    """Whether an argument is ``-``, a list on standard input."""
    return any("-" in map(str, value) for value in context.params.values() if isinstance(value, list | tuple))


def options_of(context: Any, command: str) -> dict[str, Any]:
    """The options of a command by their long names without dashes, except ``--help``.

    Raises:
        ConfigError: there is no such command, or it has no settings.
    """
    from stonecli.errors import ConfigError

    if command not in COMMANDS or command in WITHOUT:
        raise ConfigError(f"{command!r} is not a command with settings; settings are named like tag.notation")
    options = [
        param
        for param in context.command.load_command(command).params
        if param.param_type_name == "option" and not param.is_eager
    ]
    return {opt.removeprefix("--"): param for param in options for opt in param.opts if opt.startswith("--")}


def check_setting(context: Any, command: str, name: str, value: Any) -> None:
    """Check a setting as the command would check the option.

    Raises:
        ConfigError: it is invalid; the message has the setting and the reason.
    """
    from stonecli.errors import ConfigError

    options = options_of(context, command)
    if name not in options:
        raise ConfigError(f"stone {command} has no option --{name}")
    if (reason := _why_refused(context, options[name], value)) is not None:
        raise ConfigError(f"{command}.{name} {reason}")


def check_stored_setting(context: Any, command: str, name: str, value: Any) -> None:
    """As :func:`check_setting`, for a setting in the file; the error says how to fix it."""
    from stonecli.errors import ConfigError

    try:
        check_setting(context, command, name, value)
    except ConfigError as error:
        raise ConfigError(f"{error}; run: stone config unset {command}.{name}") from error


def _why_refused(context: Any, option: Any, value: Any) -> str | None:
    """The reason why the value is invalid for the option; None if it is valid."""
    scalars = value if isinstance(value, list) else [value]
    kinds: tuple[type, ...] = (bool,) if option.is_flag else (str, int, float)
    if isinstance(value, list) != bool(option.multiple) or not all(
        isinstance(item, kinds) and (option.is_flag or not isinstance(item, bool)) for item in scalars
    ):
        return f"must be {'true or false' if option.is_flag else 'a list' if option.multiple else 'one value'}"
    try:
        option.process_value(context, as_typed(option, value))
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return what_is_wrong(error, option).partition(" ")[2]
    return None


def as_typed(option: Any, value: Any) -> Any:
    """The value as text, as on the command line; ``~`` is expanded as in a shell."""
    if option.is_flag:
        return value
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else str(value)
