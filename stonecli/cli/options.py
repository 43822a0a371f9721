"""Options that several commands share, and the checks of their values.

A value is checked here and not in a command, so that ``stone config set`` refuses what the command would refuse.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from stonecli.cli.common import Device
from stonecli.key import NOTATIONS, Notation
from stonecli.output import TABLE_SUFFIXES
from stonecli.tempo.bpm import BpmRange

if TYPE_CHECKING:
    from stonecli.tagging import TagOptions

TEMPO_RANGE_HELP = "Add the tempo, halved or doubled if that is in this range, such as 80-160 (default: none)."
WRITING, FILES, SCREEN, PROCESSING = "Writing tags", "Output files", "Screen", "Processing"  # groups in the help
Mode = Literal["replace", "prepend", "append"]


def model_file(text: str) -> Path:
    """The file of the model with this name, or the file with this path.

    Raises:
        typer.BadParameter: neither exists.
    """
    from stonecli.errors import ModelError
    from stonecli.model.registry import model_path

    try:
        path = model_path(text)
    except ModelError as error:
        raise typer.BadParameter(f"{text}: {error}") from None
    if not path.exists():
        raise typer.BadParameter(f"{text}: no such file; stone models lists the models")
    return path


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers within these limits."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < minimum or (maximum is not None and value > maximum):
            limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
            raise typer.BadParameter(f"must be a whole number {limits}, not {text!r}")
        return value

    return parse


def number(minimum: float, maximum: float | None = None) -> Callable[[str], float]:
    """A parser of finite numbers within these limits."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < minimum or (maximum is not None and value > maximum):
            limits = f"of at least {minimum:g}" if maximum is None else f"from {minimum:g} to {maximum:g}"
            raise typer.BadParameter(f"must be a number {limits}, not {text!r}")
        return value

    return parse


def bpm_range(text: str) -> BpmRange:
    """The lowest and the highest tempo of a range such as ``80-160``, in beats per minute."""
    from stonecli.tags.tempo_text import parse_bpm_range

    try:
        return parse_bpm_range(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def listing(words: Sequence[str]) -> str:
    """The choices as text: ``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def file_with_ending(*endings: str) -> Callable[[str], Path]:
    """A parser of paths with one of these suffixes, so that an output file never replaces a music file."""

    def parse(text: str) -> Path:
        if Path(text).suffix.lower() not in endings:
            raise typer.BadParameter(f"must end in {listing(endings)}, not {text!r}")
        return Path(text)

    return parse


def output_option(text: str, *endings: str) -> Any:
    """The option of an output file with one of these suffixes."""
    return typer.Option(parser=file_with_ending(*endings), metavar="FILE", rich_help_panel=FILES, help=text)


def bpm_range_option(text: str, group: str | None = None) -> Any:
    """The option ``--bpm-range``, in a group of the help."""
    return typer.Option(parser=bpm_range, metavar="LOW-HIGH", rich_help_panel=group, help=text)


def _checked_fields(fields: list[str] | None) -> list[str] | None:
    """The values of ``--field``, checked."""
    from stonecli.tags.rules import parse_rules

    try:
        parse_rules(fields or [], "camelot", "prepend")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return fields


DeviceOption = Annotated[
    Device,
    typer.Option(
        metavar="|".join(get_args(Device)), rich_help_panel=PROCESSING, help="Run on the CPU or on an NVIDIA GPU."
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        parser=model_file,
        metavar="NAME|FILE",
        rich_help_panel=PROCESSING,
        help="Use another model, see stone models (default: built-in).",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        parser=whole_number(1),
        metavar="N",
        rich_help_panel=PROCESSING,
        help="Process N files in parallel (default: one per core).",
    ),
]
WriteTagsOption = Annotated[
    bool,
    typer.Option(
        "--write-tags/--no-write-tags",
        rich_help_panel=WRITING,
        help="Write the keys to the files (default: preview only).",
    ),
]
NotationOption = Annotated[
    Notation,
    typer.Option(
        metavar="|".join(NOTATIONS),
        rich_help_panel=WRITING,
        help="Write keys as 8A, 1m or G#m; with only sharps or only flats.",
    ),
]
FieldOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD[=NOTATION]",
        callback=_checked_fields,
        rich_help_panel=WRITING,
        help="Write to key, comment, grouping or title; repeatable (default: key).",
    ),
]
ModeOption = Annotated[
    Mode,
    typer.Option(
        metavar="|".join(get_args(Mode)),
        rich_help_panel=WRITING,
        help="Choose what happens to the text of a comment, grouping or title.",
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite/--no-overwrite",
        rich_help_panel=WRITING,
        help="Re-analyze files that already have a key (default: skip them).",
    ),
]
MinConfidenceOption = Annotated[
    float,
    typer.Option(
        parser=number(0, 1),
        metavar="0..1",
        rich_help_panel=WRITING,
        help="Only write keys with at least this confidence (default: 0).",
    ),
]
BpmOption = Annotated[
    bool | None,  # None: as --bpm-range says
    typer.Option(
        "--bpm/--no-bpm",
        rich_help_panel=WRITING,
        help="Add the tempo, and write it to its own field (default: key only).",
    ),
]
BpmRangeOption = Annotated[
    BpmRange | None,
    bpm_range_option(TEMPO_RANGE_HELP, WRITING),
]
PreserveMtimeOption = Annotated[
    bool,
    typer.Option(
        "--preserve-mtime/--no-preserve-mtime",
        rich_help_panel=WRITING,
        help="Keep the modification time of written files (default: update it).",
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache/--cache", rich_help_panel=PROCESSING, help="Ignore the result cache and store nothing."),
]
NullOption = Annotated[
    bool,
    typer.Option(
        "--null/--no-null",
        "-0",
        rich_help_panel=PROCESSING,
        help="Read a NUL-separated list for -, as from find -print0 (default: one per line).",
    ),
]
TableOutput = Annotated[
    Path | None,
    output_option(f"Save a table: {listing(TABLE_SUFFIXES)}.", *TABLE_SUFFIXES),
]
HtmlOutput = Annotated[
    Path | None,
    output_option("Save a web page of the library: .html.", ".html", ".htm"),
]
PlaylistOutput = Annotated[
    Path | None,
    output_option("Save a playlist of the files: .m3u8.", ".m3u8", ".m3u"),
]
CollectionOutput = Annotated[
    Path | None,
    output_option("Save a collection for rekordbox: .xml.", ".xml"),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet/--no-quiet", "-q", rich_help_panel=SCREEN, help="Print only errors.")
]
PlaylistNameOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=PROCESSING,
        help="Use this playlist of a rekordbox XML: Clubs/Saturday (default: all of it).",
    ),
]


def wants_tempo(bpm: bool | None, bpm_range: BpmRange | None) -> bool:
    """Whether ``--bpm`` or ``--bpm-range`` asks for the tempo; ``--no-bpm`` overrides a configured range."""
    return bpm_range is not None if bpm is None else bpm


def json_option(text: str) -> Any:
    """The switch ``--json``; ``--no-json`` overrides the config file."""
    return typer.Option("--json/--no-json", rich_help_panel=SCREEN, help=text)


def _tag_options(
    write_tags: WriteTagsOption = False,
    field: FieldOption = None,
    notation: NotationOption = "camelot",
    mode: ModeOption = "prepend",
    overwrite: OverwriteOption = False,
    min_confidence: MinConfidenceOption = 0.0,
    bpm: BpmOption = None,
    bpm_range: BpmRangeOption = None,
    preserve_mtime: PreserveMtimeOption = False,
    jobs: JobsOption = None,
) -> TagOptions:
    """The options of all commands that tag files, in one place."""
    from stonecli.tagging import TagOptions
    from stonecli.tags.rules import parse_rules

    try:
        rules = parse_rules(field or ["key"], notation, mode)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--field") from None
    if any(rule.field == "title" and rule.mode == "replace" for rule in rules):
        raise typer.BadParameter("cannot be replace for a title; use prepend or append", param_hint="--mode")
    bpm = wants_tempo(bpm, bpm_range)
    return TagOptions(
        rules,
        write_tags,
        overwrite,
        False,
        min_confidence,
        preserve_mtime,
        jobs,
        bpm=bpm,
        bpm_range=bpm_range if bpm else None,
    )


def _convert_options(
    write_tags: WriteTagsOption = False,
    field: FieldOption = None,
    notation: NotationOption = "camelot",
    mode: ModeOption = "prepend",
    preserve_mtime: PreserveMtimeOption = False,
    jobs: JobsOption = None,
) -> TagOptions:
    """The options of ``stone convert``: those of ``stone tag`` that need no analysis."""
    from dataclasses import replace

    found = _tag_options(write_tags, field, notation, mode, preserve_mtime=preserve_mtime, jobs=jobs)
    return replace(found, convert=True)


def takes_tag_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the options of :func:`_tag_options`, see :func:`_with_options`."""
    return _with_options(command, _tag_options)


def takes_convert_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the options of :func:`_convert_options`, see :func:`_with_options`."""
    return _with_options(command, _convert_options)


def _with_options(command: Callable[..., None], make: Callable[..., TagOptions]) -> Callable[..., None]:
    """``command`` with the options of ``make`` instead of its parameter ``options``.

    Typer reads the new signature. The command gets :class:`stonecli.tagging.TagOptions`; a parameter that the command
    also declares, such as ``notation``, is passed to both.
    """
    names = {"TagOptions": Any}  # not loaded here, because it would slow down stone --help
    shared = inspect.signature(make, locals=names, eval_str=True).parameters
    own = inspect.signature(command, locals=names, eval_str=True).parameters
    added = [param for name, param in shared.items() if name not in own]
    parameters = [param for name, old in own.items() for param in (added if name == "options" else [old])]

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        options = make(**{name: values[name] for name in shared})
        command(options=options, **{name: values[name] for name in own if name != "options"})

    with_options.__annotations__ = {param.name: param.annotation for param in parameters}
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [param.replace(kind=inspect.Parameter.KEYWORD_ONLY) for param in parameters]
    )
    return with_options
