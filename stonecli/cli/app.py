"""The Typer application: one module per command, loaded only when needed, with stone's own help and error lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stonecli.cli.common import EXIT_INTERRUPTED, EXIT_USAGE, collect_garbage, fail
from stonecli.cli.defaults import Defaults, configured, prefer_the_command_line
from stonecli.cli.help import COMMANDS, SUMMARY, command_help, program_help, version_line
from stonecli.cli.start import help_request, replace_missing_symbols
from stonecli.util.config_file import config_path


class StoneCommand(TyperCommand):
    """A command with the help of ``help.py``, where the command line takes precedence over the config file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, then turn off the configured options that they exclude."""
        rest: list[str] = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            prefer_the_command_line(ctx)
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(command_help(self, ctx))


class StoneGroup(TyperGroup):
    """``stone`` itself; prints wrong usage as one line."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(program_help())

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command named by the first argument; an unknown one is wrong usage."""
        if not ctx.resilient_parsing and args[0] not in self.commands and not args[0].startswith("-"):
            similar = get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean stone {similar[0]}?" if similar else "stone --help lists the commands"
            fail(f"{args[0]!r} is not a stone command; {hint}", EXIT_USAGE)
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]  # Typer's own further parameters are in ``extra``
        self, args: Sequence[str] | None = None, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run the command in ``args``; in standalone mode, exit with its exit code."""
        request = help_request(sys.argv[1:] if args is None else list(args))
        try:
            code = super().main(args=request or args, standalone_mode=False, **extra)
        except typer.Abort:  # Ctrl-C at a prompt
            fail("interrupted", EXIT_INTERRUPTED)
        except Exception as error:
            if not standalone_mode or not hasattr(error, "format_message"):
                raise
            fail(_usage_line(error), getattr(error, "exit_code", EXIT_USAGE))
        if not standalone_mode:
            return code
        raise SystemExit(code if isinstance(code, int) else 0)


def _usage_line(error: Any) -> str:
    """One line that says what is wrong with the command line or the config file, and what to do."""
    message, context = what_is_wrong(error, getattr(error, "param", None)), getattr(error, "ctx", None)
    if context is None:
        return message
    if (setting := configured(context, message)) is not None:
        return f"{config_path()}: {message}; fix it: stone config unset {setting}"
    if ";" in message:
        return message
    command = f"stone {context.command.name}" if context.parent is not None else "stone"
    return f"{message}; see {command} --help"


def what_is_wrong(error: Any, param: Any) -> str:
    """The message of Typer's error about a parameter or None, with the name of the parameter as its first word.

    The error classes are in click or in Typer, depending on its version, so they are identified by name.
    """
    kind = type(error).__name__
    name = getattr(error, "param_hint", None) or (_name_of(param) if param is not None else "")
    message = str(error.message).removeprefix("Value error, ").rstrip(".")
    if kind == "MissingParameter":
        return f"{name.removesuffix('...')} is missing"
    if kind == "NoSuchOption":
        similar = get_close_matches(error.option_name, error.possibilities or [], 1, 0.7)
        return f"there is no option {error.option_name}" + (f"; did you mean {similar[0]}?" if similar else "")
    if kind == "BadOptionUsage":
        return f"{error.option_name} {'takes no' if 'does not take' in message else 'needs a'} value"
    if (wrong := message.partition(" is not one of ")[0]) != message and "|" in str(getattr(param, "metavar", "")):
        choices = str(param.metavar).strip("[]").split("|")
        if "|" in name:
            return f"choose {', '.join(choices[:-1])} or {choices[-1]}, not {wrong}"
        return f"{name} must be one of {', '.join(choices)}, not {wrong}"
    if not name:
        extra = re.fullmatch(
            r"Got unexpected extra arguments? \((.*)\)|Got unexpected extra argument\(s\) \((.*)\)", message
        )
        return f"too many arguments: {extra[1] or extra[2]}" if extra else message
    return f"{name} {message}"


def _name_of(param: Any) -> str:
    return max(param.opts, key=len) if param.param_type_name == "option" else str(param.metavar).strip("[]")


def make_app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The application with these commands; each is a function in the module of the same name."""
    app = typer.Typer(
        name="stone",
        cls=StoneGroup,
        help=SUMMARY,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in commands:
        app.command(name, cls=StoneCommand)(getattr(import_module(f"stonecli.cli.{name}"), name))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    collect_garbage()
    context.default_map = Defaults(context)


def run(commands: Iterable[str] = COMMANDS) -> None:
    """Run the program with these commands, and exit."""
    replace_missing_symbols()
    make_app(commands)()
