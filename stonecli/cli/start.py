"""The entry point: prints ``--version`` and ``--help`` quickly, and loads only the command that runs."""

from __future__ import annotations

import gc
import os
import sys
from typing import TextIO, cast

from stonecli.cli.help import COMMANDS, help_request, program_help, version_line
from stonecli.cli.streams import UnbrokenStream, discard_output
from stonecli.terminal.symbols import replace_missing_symbols

ANALYZING = frozenset({"tag", "watch", "analyze", "mix", "evaluate"})  # one thread per file, several files at a time


def run() -> None:
    """Entry point of the installed command. Errors of standard output end it with at most one line."""
    open_closed_streams()
    sys.stderr = cast("TextIO", UnbrokenStream(sys.stderr))  # a message that cannot be printed must not stop the work
    try:
        try:
            _answer()
        except SystemExit as leaving:
            if not leaving.code:
                sys.stdout.flush()
            raise
        sys.stdout.flush()  # otherwise Python does it at exit, with another message and exit code
    except KeyboardInterrupt:  # outside a command; commands handle it themselves
        raise _leaving("interrupted", 130) from None
    except OSError as error:
        from stonecli.errors import reason

        raise _leaving(None if isinstance(error, BrokenPipeError) else reason(error), 1) from None
    finally:
        _discard_unprinted()


def open_closed_streams() -> None:
    """Open the null device for standard streams that the caller has closed (``<&-``).

    Otherwise the next opened file would get their descriptor, and messages of libraries would be written to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 (until the end)


def _leaving(message: str | None, code: int) -> SystemExit:
    """The exception that ends the program with ``code``; prints the message if it is not empty."""
    if message:
        print(f"stone: {message}", file=sys.stderr)
    return SystemExit(code)


def _discard_unprinted() -> None:
    """Prevent Python from trying to print the remaining output again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_output(sys.stdout.fileno())


def _answer() -> None:
    arguments = sys.argv[1:]
    if "" in arguments:  # often an unset variable in a script; as a path it would be the current folder
        raise _leaving("an argument is empty; write . for the current folder", 2)
    if arguments == ["--version"]:
        print(version_line())
    elif not is_completing() and (request := help_request(arguments)):
        if request == ["--help"]:
            replace_missing_symbols()
            print(program_help())
        else:
            sys.argv[1:] = request
            _run_command(request[0])
    else:
        _run_command(arguments[0] if arguments else "")


def _run_command(name: str) -> None:
    """Run the command with this name; Typer reports an unknown name."""
    replace_missing_symbols()
    if name in ANALYZING:
        # Before numpy is loaded. Each file is analyzed in one thread, so more threads of OpenBLAS would only wait.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # garbage collection while modules load finds nothing; see common.collect_garbage
    try:
        from stonecli.cli.app import run as run_command

        run_command([name] if name in COMMANDS else COMMANDS)  # creating Typer's commands takes time
    finally:
        gc.freeze()  # these objects live until the end of the process, so exclude them from collections


def is_completing() -> bool:
    """Whether a shell asks for completions; the name of the variable contains the name of the program."""
    return any(name.startswith("_") and name.endswith("_COMPLETE") for name in os.environ)
