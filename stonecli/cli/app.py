"""The Typer application: one module per command, loaded only when needed, with stone's own help and error lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stonecli.cli.common import EXIT_INTERRUPTED, EXIT_USAGE, collect_garbage, fail
from stonecli.cli.defaults import Defaults, prefer_the_command_line
from stonecli.cli.help import COMMANDS, SUMMARY, command_help, help_request, program_help, version_line
from stonecli.cli.usage import usage_line
from stonecli.terminal.symbols import replace_missing_symbols


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

    def load_command(self, name: str) -> Any:
        """The command with this name, loaded if it was not yet."""
        if name not in self.commands:
            self.commands.update(typer.main.get_command(make_app([name])).commands)  # type: ignore[attr-defined]
        return self.commands[name]

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
            fail(usage_line(error), getattr(error, "exit_code", EXIT_USAGE))
        if not standalone_mode:
            return code
        raise SystemExit(code if isinstance(code, int) else 0)


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
