"""``stone config``: the user's own defaults."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from stonecli.cli.common import EXIT_USAGE, fail, one_line_errors
from stonecli.cli.defaults import check_tables, check_value, options_of


@one_line_errors
def config(
    context: typer.Context,
    action: Annotated[Literal["show", "path", "set", "unset"], typer.Argument(help="What to do.")] = "show",
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Command and option, such as tag.notation.")
    ] = None,
    values: Annotated[list[str] | None, typer.Argument(metavar="[VALUE]...", help="What to set it to.")] = None,
) -> None:
    """Show or change your own defaults: stone config set tag.notation musical.

    They are kept in a TOML file, with a table a command. What is given on the command line goes first.
    """
    from stonecli.config import ConfigError, change_config, config_path, read_config

    if (name is None) != (action in ("show", "path")) or (not values) != (action != "set"):
        wanted = {"set": "set NAME VALUE", "unset": "unset NAME"}.get(action, action)
        fail(f"wanted is: stone config {wanted}", EXIT_USAGE)
    root = context.parent or context
    path = config_path()
    try:
        if action == "path":
            print(path)
        elif action == "show":
            tables = read_config(path)
            check_tables(root, tables)
            for command, table in tables.items():
                for option, value in table.items():
                    print(f"{command}.{option} = {json.dumps(value, ensure_ascii=False)}")
        else:
            command, _, option = str(name).partition(".")
            options = options_of(root, command)
            if option not in options:
                raise ConfigError(f"stone {command} has no option {option!r}")
            value = _parsed(options[option], values or []) if action == "set" else None
            if value is not None:
                check_value(root, command, option, options[option], value)
            if not change_config(path, command, option, value):
                fail(f"{name} is not set")
    except ConfigError as error:
        fail(f"{path}: {error}", EXIT_USAGE)


def _parsed(option: Any, values: list[str]) -> Any:
    """The words of the command line as a value of TOML."""
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
        if str(number) == text:  # else it would come back as another text: a model called 007 as 7
            return number
    return text
