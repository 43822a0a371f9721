"""``stone cache``: show the result cache, or clear it."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Literal

import typer

from stonecli.cli.common import error_console, fail, one_line_errors, output_console


@one_line_errors
def cache(
    action: Annotated[
        Literal["show", "clear"], typer.Argument(metavar="[show|clear]", help="Show the cache, or delete all results.")
    ] = "show",
) -> None:
    """Show or clear the cache of detected keys.

    stone tag, watch and mix use it, so no recording is analyzed twice.
    """
    import sqlite3

    from rich.text import Text

    from stonecli.cache.results import FILE_NAME, ResultCache, empty_cache
    from stonecli.errors import reason
    from stonecli.util.app_dirs import ADVICE, cache_folder
    from stonecli.util.text import printable

    path = cache_folder() / FILE_NAME
    try:
        with closing(empty_cache() if action == "clear" else ResultCache()) as results:
            count = results.count()
            if results.warning and action == "show":
                error_console().print(Text(f"stone: {printable(results.warning)}"), soft_wrap=True)
    except sqlite3.Error as error:  # such as a locked file or a full disk; stone tag then runs without the cache
        fail(f"{path}: {reason(error)}; {ADVICE}")
    line = f"{printable(str(path))}: {count} results, {path.stat().st_size / 1e6:.1f} MB"
    output_console().print(Text(line), soft_wrap=True)
