"""The command ``stone``: one module a command, loaded here, their work loaded when they run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stonecli import __version__
from stonecli.cli import analyze, cache, config, evaluate, export, mix, models, tag, train, undo, watch
from stonecli.cli.defaults import Defaults

app = typer.Typer(
    name="stone",
    help="Hears the musical key of recordings and writes it into their tags.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("tag")(tag.tag)
app.command("watch")(watch.watch)
app.command("undo")(undo.undo)
app.command("cache")(cache.cache)
app.command("config")(config.config)
app.command("analyze")(analyze.analyze)
app.command("mix")(mix.mix)
app.command("export")(export.export)
app.command("models")(models.models)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stone {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    if not {"--help", "-h"} & set(sys.argv[1:]):  # help shows stone's own defaults, whatever the config file says
        context.default_map = Defaults(context)


def run() -> None:
    """Entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an old code page shows escapes, not a traceback
    app()
