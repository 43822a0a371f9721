"""One line for wrong usage: what is wrong with the command line or the config file, and what to do."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from stonecli.util.config_file import config_path


def usage_line(error: Any) -> str:
    """One line that says what is wrong with the command line or the config file, and what to do."""
    message, context = what_is_wrong(error, getattr(error, "param", None)), getattr(error, "ctx", None)
    if context is None:
        return message
    if (setting := configured(context, message)) is not None:
        return f"{config_path()}: {message}; fix it: stone config unset {setting}"
    if ";" in message:
        return message
    command = f"stone {context.command.name}" if context.parent is not None else "stone"
    return f"{message}; see {command} --help"


def what_is_wrong(error: Any, param: Any) -> str:
    """The message of Typer's error about a parameter or None, with the name of the parameter as its first word.

    The error classes are in click or in Typer, depending on its version, so they are identified by name.
    """
    kind = type(error).__name__
    name = getattr(error, "param_hint", None) or (_name_of(param) if param is not None else "")
    message = str(error.message).removeprefix("Value error, ").rstrip(".")
    if kind == "MissingParameter":
        return f"{name.removesuffix('...')} is missing"
    if kind == "NoSuchOption":
        known = error.possibilities or []
        similar = [name for name in known if name.startswith(error.option_name)]
        similar = similar or get_close_matches(error.option_name, known, 1, 0.7)
        return f"there is no option {error.option_name}" + (f"; did you mean {similar[0]}?" if similar else "")
    if kind == "BadOptionUsage":
        return f"{error.option_name} {'takes no' if 'does not take' in message else 'needs a'} value"
    if (wrong := message.partition(" is not one of ")[0]) != message and "|" in str(getattr(param, "metavar", "")):
        choices = str(param.metavar).strip("[]").split("|")
        if "|" in name:
            return f"choose {', '.join(choices[:-1])} or {choices[-1]}, not {wrong}"
        return f"{name} must be one of {', '.join(choices)}, not {wrong}"
    if not name:
        extra = re.fullmatch(
            r"Got unexpected extra arguments? \((.*)\)|Got unexpected extra argument\(s\) \((.*)\)", message
        )
        return f"too many arguments: {extra[1] or extra[2]}" if extra else message
    return f"{name} {message}"


def _name_of(param: Any) -> str:
    return max(param.opts, key=len) if param.param_type_name == "option" else str(param.metavar).strip("[]")


def configured(context: Any, message: str) -> str | None:
    """The setting (``tag.field``) of the first option in ``message`` that is in the config file."""
    for name in re.findall(r"--[a-z0-9-]+", message):
        for param in context.command.params:
            if name in param.opts and source_of(context, param.name) == "DEFAULT_MAP":
                return f"{context.command.name}.{name.removeprefix('--')}"
    return None


def source_of(context: Any, name: str) -> str | None:
    """Where the value of a parameter is from: ``COMMANDLINE``, ``DEFAULT_MAP`` (the config file) or ``DEFAULT``."""
    source = context.get_parameter_source(name)
    return None if source is None else str(source.name)
