"""What the commands share: the consoles, errors as one line, exit codes, the model that is wanted.

Typer is loaded only where it is needed, for ``stone analyze`` may run without it (``plain.py``). What ends the program
raises SystemExit, which Typer lets pass.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from io import BufferedReader

    from rich.console import Console

    from stonecli.model import KeyModel
    from stonecli.places import Place

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

Device = Literal["auto", "cpu", "cuda"]

P = ParamSpec("P")
R = TypeVar("R")


def output_console() -> Console:
    """The console for answers: standard output."""
    from rich.console import Console

    return Console(highlight=False)


def error_console() -> Console:
    """The console for errors and progress: standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print ``message`` as one line on standard error and leave with ``code``."""
    from rich.text import Text

    from stonecli.report.text import printable

    error_console().print(Text(f"stone: {printable(message)}"), soft_wrap=True)
    raise SystemExit(code)


def check_target(path: Path | None, *, is_folder: bool = False) -> None:
    """Leave with wrong usage if no file, or folder, can be made at ``path``: before the work, not after it."""
    if path is None:
        return
    if path.exists() and path.is_dir() != is_folder:
        fail(f"{path}: is {'no' if is_folder else 'a'} folder", EXIT_USAGE)
    if not path.absolute().parent.is_dir():
        fail(f"{path.parent}: no such folder", EXIT_USAGE)
    if not os.access(path.absolute().parent, os.W_OK):  # where it is put when it is whole
        fail(f"{path.parent}: nothing can be written there", EXIT_USAGE)


def fail_without_music(names: Iterable[str | Path]) -> NoReturn:
    """Say that nothing was found where the user pointed, and exit: an empty answer would look like a fault of ours."""
    named = [str(name) for name in names if str(name) != "-"]
    where = f" in {', '.join(named[:3])}{', …' if len(named) > 3 else ''}" if named else ""
    fail(f"no music files found{where}")


def listed(paths: list[Path], null: bool) -> list[Path]:
    """``paths``, with the lines (or NUL-separated names) of standard input in the place of ``-``.

    Names are bytes, as the file system has them; empty ones are passed over.
    """
    return [Path(name) for name in listed_names([str(path) for path in paths], null)]


def listed_names(names: list[str], null: bool) -> Iterator[str]:
    """As :func:`listed`, one by one as they come, for lists without end and for addresses, which are no paths."""
    if null and "-" not in names:
        from typer import BadParameter

        raise BadParameter("goes with - for standard input", param_hint="--null")
    return _listed_names(names, b"\0" if null else b"\n")


def _listed_names(names: list[str], separator: bytes) -> Iterator[str]:
    is_read = False
    for name in names:
        if name != "-":
            yield name
        elif not is_read:
            is_read = True
            yield from _standard_input(separator)


def _standard_input(separator: bytes) -> Iterator[str]:
    rest = b""
    reader = cast("BufferedReader", sys.stdin.buffer)
    while block := reader.read1(1 << 16):
        *whole, rest = (rest + block).split(separator)
        for name in whole:
            if separator == b"\n" and os.name == "nt":
                name = name.removesuffix(b"\r")
            if name:
                yield os.fsdecode(name)
    if rest:
        yield os.fsdecode(rest)


def refuse_addresses(places: Iterable[Place], reason: str) -> None:
    """Leave with wrong usage if there is an address (``s3://``) among ``places``, where only files will do."""
    from stonecli.places import Url

    for place in places:
        if isinstance(place, Url):
            fail(f"{place}: {reason}, and this is an address", EXIT_USAGE)


def check_ending(path: Path | None, endings: tuple[str, ...], option: str) -> None:
    """Leave with wrong usage if ``path`` ends in none of ``endings``: what is made must not be mistaken for music."""
    if path is not None and path.suffix.lower() not in endings:
        from typer import BadParameter

        raise BadParameter(f"ends in {' or '.join(endings)}", param_hint=option)


def print_json(record: dict[str, Any]) -> None:
    """Print one object on a line of its own, at once: whoever reads in a pipe need not wait for the end."""
    print(json.dumps(record), flush=True)


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """``command`` with every error as one line and an exit code, never a traceback (unless STONE_DEBUG is set)."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (the interpreter flushes it at exit)
            raise SystemExit(EXIT_FAILED) from None
        except Exception as error:
            from typer import Abort, BadParameter, Exit

            if os.environ.get("STONE_DEBUG") or isinstance(error, Abort | BadParameter | Exit):
                raise
            from stonecli.engine import error_line

            name = getattr(error, "filename", None)
            fail((f"{os.fsdecode(name)}: " if name else "") + error_line(error))

    return wrapped


def load_model(path: Path | None, device: Device) -> KeyModel:
    """The model of the options; an unusable one or a missing device ends the program as wrong usage."""
    from stonecli.errors import DeviceError, ModelError
    from stonecli.model import KeyModel

    try:
        if path is None:
            key_model = KeyModel(None, device)
        else:
            from stonecli.model_store import model_path, recorded_sha256

            file = path if path.exists() else model_path(str(path))  # which says what names there are
            key_model = KeyModel(file, device, sha256=recorded_sha256(file))
    except DeviceError as error:
        fail(str(error), EXIT_USAGE)
    except (ModelError, OSError) as error:
        from stonecli.engine import error_line

        fail(f"{path or 'built-in model'}: {error_line(error)}", EXIT_USAGE)
    collect_garbage()
    return key_model


def collect_garbage() -> None:
    """Have Python look for garbage from now on, if it was kept from that while the program was loaded (``start.py``).

    What is there already stays, so it is never looked through.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def silence_native_stderr() -> None:
    """Let libraries written in C say nothing on standard error (mpg123 warns there of every odd MP3); Python still may.

    Not done where STONE_DEBUG is set, or where standard error is no real file.
    """
    if os.environ.get("STONE_DEBUG"):
        return
    try:
        ours = os.dup(sys.stderr.fileno())
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
    except (OSError, ValueError, AttributeError):
        return
    from stonecli.native_stderr import stop_redirecting

    stop_redirecting()
    sys.stderr = open(ours, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: SIM115, PTH123
