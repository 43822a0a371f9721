"""``stone analyze`` with a simple command line, parsed without Typer, which would double the time for a short file.

Only file names and the options below are parsed here, and only if there is no config file. Everything else, such as
wrong usage and ``--help``, is for Typer; a test compares the two parsers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from stonecli.cli.common import Device, one_line_errors
from stonecli.cli.start import is_completing

SWITCHES = {"--json": "as_json", "--per-window": "per_window"}
DEVICES: tuple[str, ...] = get_args(Device)
_EXPANDED = frozenset("*?[~$%")  # in a file name on Windows, where no shell has done it before


def plain_arguments(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of ``analyze_files`` for what follows ``stone analyze``; None if it is for Typer."""
    files: list[Path] = []
    found: dict[str, Any] = {"files": files}
    rest = iter(arguments)
    for argument in rest:
        if argument in SWITCHES:
            found[SWITCHES[argument]] = True
        elif argument == "--device":
            found["device"] = next(rest, None)
            if found["device"] not in DEVICES:
                return None
        elif not argument or argument.startswith("-") or (os.name == "nt" and _EXPANDED & set(argument)):
            return None
        else:
            files.append(Path(argument))
    return found if files else None


def run_plain(arguments: Sequence[str]) -> None:
    """Run ``stone analyze`` and leave, if its command line is a simple one; otherwise do nothing."""
    found = plain_arguments(arguments)
    if found is None or is_completing() or _may_be_configured():
        return
    sys.exit(_analyze(found))


@one_line_errors
def _analyze(found: dict[str, Any]) -> int:
    from stonecli.cli.analyze_files import analyze_files

    return analyze_files(**found)


def _may_be_configured() -> bool:
    """Whether there is a config file, or something in its place that cannot be read."""
    from stonecli.util.config_file import config_path

    try:
        config_path().lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
