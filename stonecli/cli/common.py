"""Functions that several commands use: consoles, errors as one line, exit codes, loading the model.

Functions that end the program raise SystemExit.
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
    from typing import TextIO

    from rich.console import Console

    from stonecli.library.locations import Location
    from stonecli.model.session import KeyModel
    from stonecli.output.sinks import Targets

_HEAD = 1 << 20  # bytes
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

Device = Literal["auto", "cpu", "cuda"]

P = ParamSpec("P")
R = TypeVar("R")


def output_console() -> Console:
    """The console for results: standard output."""
    from stonecli.terminal.screen import make_console

    return make_console()


def error_console() -> Console:
    """The console for errors and progress: standard error."""
    from stonecli.terminal.screen import make_console

    return make_console(stderr=True)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print ``message`` as one line on standard error, and exit with ``code``."""
    from stonecli.util.text import printable

    print(f"stone: {printable(message)}", file=sys.stderr)
    raise SystemExit(code)


def check_target(path: Path | None, option: str, *, is_folder: bool = False) -> None:
    """Wrong usage if no file (or folder) can be created at ``path``; checked before anything slow starts."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.exists() and path.is_dir() != is_folder:
        problem = f"{path} is {'not ' if is_folder else ''}a folder; choose another name"
    elif not folder.is_dir():
        problem = f"{path.parent}: no such folder; create it first"
    elif not os.access(folder, os.W_OK):  # the complete file is moved to this folder
        problem = f"{path.parent}: you may not write to this folder; choose another"
    else:
        return
    from typer import BadParameter

    raise BadParameter(problem, param_hint=option)


def check_outputs(targets: Targets, *, as_json: bool, quiet: bool) -> None:
    """Wrong usage if an output file cannot be created, or if ``--quiet`` is combined with ``--json``."""
    for name, target in vars(targets).items():
        check_target(target, f"--{name}", is_folder=is_parquet(target))
    check_quiet(as_json=as_json, quiet=quiet)


def check_quiet(*, as_json: bool, quiet: bool) -> None:
    """Wrong usage if ``--quiet`` is combined with ``--json``."""
    if quiet and as_json:
        from typer import BadParameter

        raise BadParameter("cannot be combined with --json", param_hint="--quiet")


def is_parquet(path: Path | None) -> bool:
    """Whether this is the path of a Parquet folder."""
    return path is not None and path.suffix.lower() == ".parquet"


def fail_without_music(names: Iterable[str | Path]) -> NoReturn:
    """Exit with a line that says that no music was found; an empty table would look like a bug."""
    named = [str(name) for name in names if str(name) != "-"]
    where = f" in {', '.join(named[:3])}{', ...' if len(named) > 3 else ''}" if named else ""
    fail(f"no music files found{where}")


def listed(names: list[str], null: bool, command: str) -> list[Path]:
    """The paths that ``names`` gives to ``stone {command}``, as :func:`listed_names`; a URL is wrong usage."""
    from stonecli.library.locations import parse_location

    locations = list(map(parse_location, listed_names(names, null)))
    refuse_addresses(locations, f"stone {command} works with files on this computer; stone tag also analyzes URLs")
    return [location for location in locations if isinstance(location, Path)]


def listed_names(names: list[str], null: bool) -> Iterator[str]:
    """``names``, with ``-`` replaced by the lines, or NUL-separated names, of standard input.

    Names are bytes, as in the file system; empty ones are skipped. The list may be endless.
    """
    if null and "-" not in names:
        from typer import BadParameter

        raise BadParameter("only works with -, the list on standard input", param_hint="--null")
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
            yield from _name(name, separator)
    yield from _name(rest, separator)


def _name(text: bytes, separator: bytes) -> Iterator[str]:
    """The name in one line of a list, unless it is empty.

    A carriage return at the end belongs to the line break of Windows, unless there is a file with such a name.
    """
    if separator == b"\n" and text.endswith(b"\r") and not Path(os.fsdecode(text)).exists():
        text = text.removesuffix(b"\r")
    if text:
        yield os.fsdecode(text)


def source_collection(paths: Iterable[Location], playlist_name: str | None, rekordbox: Path | None) -> Path | None:
    """The rekordbox XML among ``paths``, which ``--rekordbox`` writes again with the keys; None if there is none.

    Wrong usage if it is not clear which one, if it cannot be updated, or if ``rekordbox`` would replace it or a
    collection that is not read.
    """
    from typer import BadParameter

    from stonecli.library.crates import is_collection

    found = [path for path in paths if isinstance(path, Path) and is_collection(path) and not path.is_dir()]
    if playlist_name is not None and not found:
        raise BadParameter("needs a rekordbox XML among the paths", param_hint="--playlist-name")
    if rekordbox is None:
        return None
    if not found:
        _check_is_ours(rekordbox)
        return None
    if len(found) > 1:
        raise BadParameter(f"can update one collection, not {len(found)}; give one XML", param_hint="--rekordbox")
    if rekordbox.exists() and found[0].exists() and rekordbox.samefile(found[0]):
        raise BadParameter(f"{rekordbox} is the collection that is read; choose another name", param_hint="--rekordbox")
    if found[0].exists():
        from stonecli.errors import StoneError
        from stonecli.output.rekordbox import read_updatable

        try:
            read_updatable(found[0], playlist_name)
        except StoneError as error:
            fail(str(error), EXIT_USAGE)
    return found[0]


def _check_is_ours(path: Path) -> None:
    """Wrong usage if the XML at ``path`` is not from stone, or has cues or grids, which the new file would not have."""
    try:
        with path.open("rb") as file:
            head = rest = file.read(_HEAD)
            is_ours = not head or b'<PRODUCT Name="stone"' in head
            while is_ours and rest:
                is_ours = b"<POSITION_MARK" not in rest and b"<TEMPO" not in rest
                block = file.read(_HEAD)
                rest = block and rest[-20:] + block  # a tag may start in one block and end in the next
    except FileNotFoundError:
        return
    if not is_ours:
        from typer import BadParameter

        problem = f"would replace {path}, which another program wrote or which has cues or grids"
        advice = "choose another name; to add keys to that collection, also give it as a path"
        raise BadParameter(f"{problem}; {advice}", param_hint="--rekordbox")


def check_inputs(locations: Iterable[Location], playlist: Path | None) -> None:
    """Wrong usage if ``--playlist`` would replace a playlist among ``locations``, also by another name."""
    from stonecli.library.crates import is_crate

    if playlist is None or not playlist.exists():
        return
    for path in locations:
        if isinstance(path, Path) and is_crate(path) and path.exists() and playlist.samefile(path):
            from typer import BadParameter

            raise BadParameter(f"{playlist} is a playlist that is read; choose another name", param_hint="--playlist")


def refuse_addresses(locations: Iterable[Location], reason: str) -> None:
    """Wrong usage if ``locations`` contains a URL (``s3://``) where only files are supported."""
    from stonecli.library.locations import Url

    for location in locations:
        if isinstance(location, Url):
            fail(f"{location} is a URL: {reason}", EXIT_USAGE)


def print_json(record: dict[str, Any]) -> None:
    """Print one object on one line, and flush it so that the reader of a pipe gets it at once."""
    print(json.dumps(record), flush=True)


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """``command``, with every error printed as one line (with STONE_DEBUG set: as a traceback) and an exit code."""

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
            from stonecli.errors import describe

            fail(describe(error, with_path=True))

    return wrapped


def load_model(path: Path | None, device: Device) -> KeyModel:
    """The model of ``--model`` on ``--device``; if it cannot be used, the program ends with wrong usage."""
    from stonecli.errors import DeviceError, ModelError
    from stonecli.model.session import KeyModel

    try:
        if path is None:
            key_model = KeyModel(None, device)
        else:
            from stonecli.model.registry import model_path, recorded_sha256

            file = path if path.exists() else model_path(str(path))  # its error lists the names
            key_model = KeyModel(file, device, sha256=recorded_sha256(file))
    except DeviceError as error:
        fail(str(error), EXIT_USAGE)
    except (ModelError, OSError) as error:
        from stonecli.errors import describe

        fail(f"{path or 'built-in model'}: {describe(error)}", EXIT_USAGE)
    collect_garbage()
    return key_model


def collect_garbage() -> None:
    """Turn on Python's garbage collector, which ``start.py`` turns off while the program is loading.

    Existing objects live until the end, so they are excluded from collections.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def silence_native_stderr() -> None:
    """Discard what C libraries print to standard error (mpg123 prints warnings about unusual MP3 files).

    Python's own messages still appear. Does nothing with STONE_DEBUG set, or if standard error is not a real file.
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
    from stonecli.audio.native_stderr import stop_redirecting
    from stonecli.cli.streams import UnbrokenStream

    stop_redirecting()
    stream = open(ours, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: SIM115, PTH123
    sys.stderr = cast("TextIO", UnbrokenStream(stream))
