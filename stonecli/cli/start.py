"""The installed command: version and help are answered before anything is loaded, and then only what is run is."""

from __future__ import annotations

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


def run() -> None:
    """Entry point of the installed command."""
    if sys.argv[1:] == ["--version"]:
        print(f"stone {__version__}")
    elif sys.argv[1:] in (["--help"], ["-h"]):
        print(help_text())
    else:
        from stonecli.cli.app import run as run_command

        wanted = sys.argv[1] if len(sys.argv) > 1 else ""
        run_command([wanted] if wanted in COMMANDS else COMMANDS)  # Typer and pydantic ask a price for each


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
