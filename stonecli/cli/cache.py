"""``stone cache``: where the remembered results are, how many, and forgetting them."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Literal

import typer

from stonecli.cli.common import fail, one_line_errors, output_console


@one_line_errors
def cache(
    action: Annotated[
        Literal["show", "clear"], typer.Argument(metavar="[clear]", help="Forget all results.", show_default=False)
    ] = "show",
) -> None:
    """Show the cache of what was heard: stone tag does not hear a recording twice, unless with --no-cache."""
    import sqlite3

    from rich.text import Text

    from stonecli.cache import FILE_NAME, ResultCache
    from stonecli.folders import cache_folder
    from stonecli.report.text import printable

    try:
        with closing(ResultCache()) as results:
            if action == "clear":
                results.clear()
            count = results.count()
    except sqlite3.Error as error:  # what stone tag goes on without: locked, a full disk
        fail(f"{cache_folder() / FILE_NAME}: {error}")
    size = results.path.stat().st_size
    line = f"{printable(str(results.path))}: {count} results, {size / 1e6:.1f} MB"
    output_console().print(Text(line), soft_wrap=True)
