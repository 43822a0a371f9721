"""Help texts: one layout for the program and its commands, plain text that fits the terminal.

``stone --help`` loads this module and nothing else, so it imports neither Typer nor slow parts of the standard library.
"""

from __future__ import annotations

import os
import sys

from stonecli._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SUMMARY = "Detects the musical key of your tracks and writes it to their tags, so you can mix harmonically."

# The first sentence of every command's help; a test compares them with the commands.
COMMANDS = {
    "tag": "Detect the key of music files and write it to their tags.",
    "watch": "Tag new music files as they arrive in a folder.",
    "undo": "Restore the files that a run of stone has changed.",
    "cache": "Show or clear the cache of detected keys.",
    "config": "Show or change your default options.",
    "convert": "Write the keys that files already have in another notation.",
    "compare": "Compare the keys in the tags with the detected ones.",
    "analyze": "Show the key of music files in detail, without writing anything.",
    "mix": "Sort tracks into an order that mixes well by key, tuning and tempo.",
    "export": "Convert a PyTorch checkpoint to an ONNX model for --model.",
    "models": "List, show, add and remove models for --model.",
    "evaluate": "Measure the accuracy of a model on music with known keys.",
    "train": "Train a key model on your own music.",
}

MIN_WIDTH, DEFAULT_WIDTH, MAX_WIDTH = 40, 80, 100  # characters
_MAX_LEFT = 24  # characters of an option's name; longer ones are on a separate line


Section = tuple[str, list[tuple[str, str]]]
"""A title and entries, each with its name and its explanation."""


def help_request(arguments: list[str]) -> list[str] | None:
    """The arguments with ``--help`` for ``stone``, ``stone help`` and ``stone help COMMAND``; None for others."""
    if arguments in ([], ["help"], ["-h"], ["--help"], ["help", "help"]):
        return ["--help"]
    if len(arguments) == 2 and arguments[0] == "help" and not arguments[1].startswith("-"):
        return [arguments[1], "--help"]
    return None


def program_help() -> str:
    """The text of ``stone --help``."""
    width = _width()
    options = [
        ("--version", "Print the version."),
        ("--install-completion", "Install tab completion for your shell."),
        ("--show-completion", "Print the tab completion script."),
        ("-h, --help", "Print this help."),
    ]
    return "\n".join(
        [
            *_wrapped("Usage: stone COMMAND [OPTIONS] [ARGUMENTS]", width, "  "),
            "",
            *_wrapped(SUMMARY, width),
            *_section_lines([("Commands", list(COMMANDS.items())), ("Options", options)], width),
            "",
            *_wrapped("For the options of a command: stone COMMAND --help, such as stone tag --help", width),
        ]
    )


def command_help(command: Any, context: Any) -> str:
    """The text of ``stone COMMAND --help``.

    Args:
        command: Typer's command.
        context: the context of this command.
    """
    import inspect

    width = _width()
    lines = [*_wrapped(usage(command), width, "  ")]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += ["", *([paragraph] if paragraph.startswith(" ") else _wrapped(paragraph, width))]
    return "\n".join([*lines, *_section_lines(sections(command, context), width)])


def usage(command: Any) -> str:
    """The usage line of a command."""
    arguments = [param.metavar for param in command.params if param.param_type_name == "argument"]
    return " ".join([f"Usage: stone {command.name} [OPTIONS]", *arguments])


def sections(command: Any, context: Any) -> list[Section]:
    """The arguments and options of a command by group (Typer's ``rich_help_panel``)."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        if param.param_type_name == "argument":
            title, name = "Arguments", param.metavar.strip("[]")
        else:
            title, name = getattr(param, "rich_help_panel", None) or "Options", _option_name(param)
        grouped.setdefault(title, []).append((name, _explanation(param)))
    others = grouped.pop("Options")
    found: list[Section] = list(grouped.items())
    index = len(found) if len(others) == 1 else sum(title == "Arguments" for title, _ in found)
    return [*found[:index], ("Options", others), *found[index:]]


def _option_name(option: Any) -> str:
    """The names of an option, such as ``-j, --jobs N`` or ``--[no-]quiet``."""
    names = sorted(option.opts, key=len)
    positive = names[-1].removeprefix("--")
    if option.secondary_opts == [f"--no-{positive}"]:
        names[-1] = f"--[no-]{positive}"
    return ", ".join(names) + (f" {option.metavar}" if option.metavar and not option.is_flag else "")


def _explanation(param: Any) -> str:
    """The help text, with the default added if the text does not state it."""
    text = "Print this help." if "--help" in param.opts else param.help or ""
    default = param.default
    if param.required and param.param_type_name == "option":
        note = "required"
    elif default is None or default is False or default in ([], ()) or "(default" in text or not param.show_default:
        return text
    else:
        note = f"default: {default:g}" if isinstance(default, float) else f"default: {default}"
    return f"{text.rstrip('.')} ({note})."


def _section_lines(sections: list[Section], width: int) -> list[str]:
    """The lines of the sections in two columns; in one column on a narrow terminal."""
    names = [name for _, entries in sections for name, _ in entries]
    left = max(len(name) for name in names if len(name) <= _MAX_LEFT)
    is_narrow = width < left + 36
    indent = " " * (6 if is_narrow else left + 4)
    lines = []
    for title, entries in sections:
        lines += ["", f"{title}:"]
        for name, text in entries:
            explained = [indent + line for line in _wrapped(text, width - len(indent))]
            if not is_narrow and len(name) <= left and explained:
                explained[0] = f"  {name:{left}}  {explained[0].lstrip()}"
                lines += explained
            else:
                lines += [*_name_lines(name, width), *explained]
    return lines


def _name_lines(name: str, width: int) -> list[str]:
    """The name of an option as lines; choices that do not fit (``red|green|blue``) continue on the next line."""
    lines, indent = [f"  {name}"], "    "
    while len(lines[-1]) > width and (cut := lines[-1].rfind("|", len(indent), width) + 1):
        lines[-1:] = [lines[-1][:cut], indent + lines[-1][cut:]]
    return lines


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The words of ``text`` as lines of at most ``width`` characters; those after the first start with ``indent``."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word if lines else word)
    return lines


def _width() -> int:
    """Width of the help: that of the terminal, within ``MIN_WIDTH`` and ``MAX_WIDTH``."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdigit() else 0
    if not width:
        try:
            width = os.get_terminal_size(sys.stdout.fileno()).columns
        except (OSError, ValueError, AttributeError):  # not a terminal
            width = 0
    return min(MAX_WIDTH, max(MIN_WIDTH, width or DEFAULT_WIDTH))


def version_line() -> str:
    """The text of ``stone --version``."""
    return f"stone {__version__}"
