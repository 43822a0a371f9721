"""The command line as Typer sees it: one module a command, of which only those that are wanted are loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from stonecli import __version__
from stonecli.cli.common import collect_garbage
from stonecli.cli.defaults import Defaults
from stonecli.cli.start import COMMANDS, show_as_escapes


def make_app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """``stone`` with these commands; each is the function of its own name in the module of its own name."""
    app = typer.Typer(
        name="stone",
        help="Hears the musical key of recordings and writes it into their tags.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in commands:
        app.command(name)(getattr(import_module(f"stonecli.cli.{name}"), name))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stone {__version__}")
        raise typer.Exit


def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    collect_garbage()
    if not {"--help", "-h"} & set(sys.argv[1:]):  # help shows stone's own defaults, whatever the config file says
        context.default_map = Defaults(context)


def run(commands: Iterable[str] = COMMANDS) -> None:
    """Run the program with these commands to choose from, and leave."""
    show_as_escapes()
    make_app(commands)()
