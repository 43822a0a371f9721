"""The installed command: version and help are answered before anything is loaded, and then only what is run is."""

from __future__ import annotations

import gc
import os
import sys

from stonecli._version import __version__

# How each begins that there is; a test holds the two together.
COMMANDS = {
    "tag": "Hear the key of music files and write it into their tags",
    "watch": "Tag the music that arrives in a folder",
    "undo": "Take back what a run of stone tag --write-tags has changed",
    "cache": "Show the cache of what was heard",
    "config": "Show or change your own defaults",
    "analyze": "Show the key of music files: candidates, tuning, the key over time",
    "mix": "Put tracks into an order in which they mix: by key, tuning and tempo",
    "export": "Turn a checkpoint into a model for --model",
    "models": "List, show, add and remove the models that --model takes by name",
    "evaluate": "Score a model on music whose keys are known: MIREX, accuracy, KSEA",
    "train": "Train a key model",
}

HEARING = frozenset({"tag", "watch", "analyze", "mix", "evaluate"})  # each file in one thread, several at a time


def run() -> None:
    """Entry point of the installed command: it leaves with one line at most, whatever becomes of standard output."""
    open_closed_streams()
    try:
        try:
            _answer()
        except SystemExit as leaving:
            if not leaving.code:
                sys.stdout.flush()
            raise
        sys.stdout.flush()  # at its end the interpreter would do so, with a code and a text of its own
    except KeyboardInterrupt:  # before a command, which has its own way, or after it
        raise _leaving("interrupted", 130) from None
    except OSError as error:
        message = None if isinstance(error, BrokenPipeError) else error.strerror or str(error)
        raise _leaving(message, 1) from None
    finally:
        _drop_what_cannot_be_printed()


def open_closed_streams() -> None:
    """Have standard input empty, and output go nowhere, where whoever calls has closed them (``<&-``).

    Else the next file that is opened gets their number, and what a library has to say goes into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 (until the end)


def _leaving(message: str | None, code: int) -> SystemExit:
    """What leaves with ``code``, after the message, if there is one."""
    if message:
        print(f"stone: {message}", file=sys.stderr)
    return SystemExit(code)


def _drop_what_cannot_be_printed() -> None:
    """Keep the interpreter from trying it once more."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _answer() -> None:
    if "" in sys.argv[1:]:  # a variable of a script that is not set; as a path it would be the current folder
        raise _leaving("an empty argument names nothing; the current folder is .", 2)
    if sys.argv[1:] == ["--version"]:
        print(f"stone {__version__}")
    elif sys.argv[1:] in (["--help"], ["-h"]):
        print(help_text())
    else:
        _run_command(sys.argv[1] if len(sys.argv) > 1 else "")


def _run_command(wanted: str) -> None:
    """Run a command, or what is none, and leave."""
    show_as_escapes()
    if wanted in HEARING:
        # Before numpy is loaded. A file is heard in one thread; those of OpenBLAS would only be started, and wait.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # while modules are loaded, which stay: looking through them finds nothing (common.collect_garbage)
    try:
        if wanted == "analyze":
            from stonecli.cli.plain import run_plain

            run_plain(sys.argv[2:])
        from stonecli.cli.app import run as run_command

        run_command([wanted] if wanted in COMMANDS else COMMANDS)  # Typer and pydantic ask a price for each
    finally:
        gc.freeze()  # nor is what goes with the process looked through at its end


def show_as_escapes() -> None:
    """What an old code page has no letters for is shown as escapes from now on, not as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def help_text() -> str:
    """What ``stone --help`` prints."""
    return "\n".join(
        [
            "Usage: stone COMMAND [OPTIONS] [ARGUMENTS]",
            "",
            "Hears the musical key of recordings and writes it into their tags.",
            "",
            "Commands (stone COMMAND --help tells the rest):",
            *(f"  {name:<9}{text}." for name, text in COMMANDS.items()),
            "",
            "Options:",
            "  --version             Print the version and leave.",
            "  --install-completion  Install completion for the current shell.",
            "  --show-completion     Show it, to copy it.",
            "  -h, --help            Show this message and leave.",
        ]
    )
