"""The installed command: answers ``--version`` and ``--help`` at once, and loads only the command that runs."""

from __future__ import annotations

import gc
import os
import sys

from stonecli.terminal.symbols import ASCII_SYMBOLS, register_ascii_symbols

ANALYZING = frozenset({"tag", "watch", "analyze", "mix", "evaluate"})  # one thread per file, several files at a time


def run() -> None:
    """Entry point of the installed command. Whatever happens to standard output, it ends with at most one line."""
    open_closed_streams()
    try:
        try:
            _answer()
        except SystemExit as leaving:
            if not leaving.code:
                sys.stdout.flush()
            raise
        sys.stdout.flush()  # the interpreter would do it at exit, with a code and a text of its own
    except KeyboardInterrupt:  # before or after a command; commands handle it themselves
        raise _leaving("interrupted", 130) from None
    except OSError as error:
        from stonecli.errors import reason

        raise _leaving(None if isinstance(error, BrokenPipeError) else reason(error), 1) from None
    finally:
        _discard_unprinted()


def open_closed_streams() -> None:
    """Open the null device for standard streams that the caller has closed (``<&-``).

    Otherwise the next file that is opened gets their number, and a library's messages are written into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 (until the end)


def _leaving(message: str | None, code: int) -> SystemExit:
    """The exception that ends the program with ``code``; prints the message, if there is one."""
    if message:
        print(f"stone: {message}", file=sys.stderr)
    return SystemExit(code)


def _discard_unprinted() -> None:
    """Keep the interpreter from trying again at exit to print what could not be printed."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_output(sys.stdout.fileno())


def discard_output(descriptor: int) -> None:
    """Send what is printed to the file descriptor, and what is still buffered, to the null device from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _answer() -> None:
    arguments = sys.argv[1:]
    if "" in arguments:  # often an unset variable of a script; as a path it would mean the current folder
        raise _leaving("an argument is empty; for the current folder write .", 2)
    if arguments == ["--version"]:
        from stonecli.cli.help import version_line

        print(version_line())
    elif not is_completing() and (request := help_request(arguments)):
        if request == ["--help"]:
            from stonecli.cli.help import program_help

            replace_missing_symbols()
            print(program_help())
        else:
            sys.argv[1:] = request
            _run_command(request[0])
    else:
        _run_command(arguments[0] if arguments else "")


def _run_command(name: str) -> None:
    """Run the command with this name; Typer answers where there is none."""
    from stonecli.cli.help import COMMANDS

    replace_missing_symbols()
    if name in ANALYZING:
        # Before numpy is loaded: each file is analyzed in one thread, so OpenBLAS's own threads would only wait.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # modules stay, so collecting garbage while they load finds nothing (common.collect_garbage)
    try:
        from stonecli.cli.app import run as run_command

        run_command([name] if name in COMMANDS else COMMANDS)  # building Typer's commands takes time
    finally:
        gc.freeze()  # what exists now ends with the process; it need not be searched for garbage


def help_request(arguments: list[str]) -> list[str] | None:
    """The arguments that print the same help, for ``stone``, ``stone help`` and ``stone help COMMAND``; else None."""
    if arguments in ([], ["help"], ["-h"], ["--help"], ["help", "help"]):
        return ["--help"]
    if len(arguments) == 2 and arguments[0] == "help" and not arguments[1].startswith("-"):
        return [arguments[1], "--help"]
    return None


def is_completing() -> bool:
    """Whether a shell asks for completions; the name of the variable contains the name of the program."""
    return any(name.startswith("_") and name.endswith("_COMPLETE") for name in os.environ)


def replace_missing_symbols() -> None:
    """From now on, print what the terminal's encoding lacks as an ASCII symbol or an escape, not as a traceback."""
    register_ascii_symbols()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ASCII_SYMBOLS)
