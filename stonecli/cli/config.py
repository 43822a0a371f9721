"""``stone config``: the user's default options."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stonecli.cli.common import EXIT_USAGE, fail, one_line_errors
from stonecli.cli.defaults import check_setting, check_stored_setting, options_of
from stonecli.cli.help import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

_USAGE = {"set": "set NAME VALUE", "unset": "unset NAME"}


@one_line_errors
def config(
    context: typer.Context,
    action: Annotated[
        Literal["show", "path", "set", "unset"],
        typer.Argument(metavar="[show|path|set|unset]", help="Choose what to do."),
    ] = "show",
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name a command and its option, such as tag.notation.")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[VALUE...]", help="Give the new value, or several for a list.")
    ] = None,
) -> None:
    """Show or change your default options.

    Example: stone config set tag.notation musical

    The options are stored in a TOML file; stone config path prints where. Command-line options take precedence.
    """
    from stonecli.errors import ConfigError
    from stonecli.util.config_file import change_config, config_path

    if (name is None) != (action in ("show", "path")) or (not values) != (action != "set"):
        fail(f"usage: stone config {_USAGE.get(action, action)}", EXIT_USAGE)
    root = context.parent or context
    path = config_path()
    try:
        if action == "path":
            print(path)
        elif action == "show":
            _show(root, path)
        else:
            command, _, option = str(name).rpartition(".")
            value = None
            if action == "set":
                value = _checked(root, command, option, values or [])
            if not change_config(path, command, option, value):
                fail(f"{name} is not set; stone config shows the settings")
    except ConfigError as error:
        fail(f"{path}: {error}", EXIT_USAGE)


def _checked(root: Any, command: str, option: str, values: list[str]) -> Any:
    """The value to store; if the command would refuse it, the program ends with wrong usage."""
    from stonecli.errors import ConfigError

    try:
        options = options_of(root, command)
        value = _parsed(options[option], values) if option in options else ""
        check_setting(root, command, option, value)
    except ConfigError as error:
        example = f"stone {command} --help" if command in COMMANDS else "stone --help"
        fail(f"{error}; see {example}", EXIT_USAGE)
    return value


def _show(root: Any, path: Path) -> None:
    """Print every setting in the file, and an error line for each invalid one."""
    from stonecli.errors import ConfigError
    from stonecli.util.config_file import read_config
    from stonecli.util.text import printable

    tables = read_config(path)
    errors = []
    for command, table in tables.items():
        for option, value in table.items():
            print(f"{printable(command)}.{printable(option)} = {json.dumps(value, ensure_ascii=False, default=str)}")
            try:
                check_stored_setting(root, command, option, value)
            except ConfigError as error:
                errors.append(str(error))
    if not any(tables.values()):
        print(
            f"stone: no settings yet; stone config set tag.notation musical, for example, stores one in {path}",
            file=sys.stderr,
        )
    for line in errors:
        print(f"stone: {printable(f'{path}: {line}')}", file=sys.stderr)
    if errors:
        raise typer.Exit(EXIT_USAGE)


def _parsed(option: Any, values: list[str]) -> Any:
    """The arguments as a TOML value."""
    if option.multiple:
        return values
    text = " ".join(values)
    if option.is_flag:
        return {"true": True, "false": False}.get(text.lower(), text)
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text:  # otherwise a model named 007 would become 7
            return number
    return text
