"""``stone mix``: an order of tracks that mixes well, or the tracks that mix with one of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from stonecli.cli.common import (
    check_inputs,
    check_quiet,
    check_target,
    listed,
    load_model,
    one_line_errors,
    silence_native_stderr,
    source_collection,
)
from stonecli.cli.mix_screen import MixFiles, MixScreen
from stonecli.cli.options import (
    PROCESSING,
    SCREEN,
    DeviceOption,
    JobsOption,
    ModelOption,
    NoCacheOption,
    NullOption,
    PlaylistNameOption,
    QuietOption,
    bpm_range_option,
    json_option,
    number,
    output_option,
    wants_tempo,
)
from stonecli.key import NOTATIONS, Notation
from stonecli.tempo.bpm import BpmRange

ORDER = "Order of the tracks"


def _positions(texts: list[str] | None) -> list[str] | None:
    """The values of ``--at``, checked."""
    for text in texts or ():
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}=.+", text, re.ASCII | re.DOTALL):
            raise typer.BadParameter(f"must be a position and a track, such as 15=peak.mp3, not {text!r}")
    if len(_numbered(texts)) < len(texts or ()):
        raise typer.BadParameter("must not name a position twice")
    return texts


def _numbered(texts: list[str] | None) -> dict[int, str]:
    """The tracks of ``--at`` by position."""
    return {int(number): track for number, _, track in (text.partition("=") for text in texts or ())}


def _check(
    playlist: Path | None, rekordbox: Path | None, compatible: Path | None, fixed: object, *, as_json: bool, quiet: bool
) -> None:
    """Wrong usage if a file cannot be created, or if options exclude each other; ``fixed`` tracks need an order."""
    check_quiet(as_json=as_json, quiet=quiet)
    check_target(playlist, "--playlist")
    check_target(rekordbox, "--rekordbox")
    if compatible and (playlist or rekordbox or fixed):
        raise typer.BadParameter(
            "cannot be combined with --start, --end, --at, --playlist or --rekordbox", param_hint="--compatible"
        )


@one_line_errors
def mix(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Mix these files, folders, playlists or rekordbox XML, or - for a list on stdin.",
        ),
    ],
    start: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="TRACK",
            rich_help_panel=ORDER,
            help="Start with this file: its path or name (default: any).",
        ),
    ] = None,
    end: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="TRACK",
            rich_help_panel=ORDER,
            help="End with this file: its path or name (default: any).",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N=TRACK",
            callback=_positions,
            rich_help_panel=ORDER,
            help="Put this file at position N: 15=peak.mp3; repeatable (default: none).",
        ),
    ] = None,
    key_weight: Annotated[
        float,
        typer.Option(
            parser=number(0, 100), metavar="FACTOR", rich_help_panel=ORDER, help="Set the weight of key and tuning."
        ),
    ] = 1.0,
    tempo_weight: Annotated[
        float,
        typer.Option(
            parser=number(0, 100), metavar="FACTOR", rich_help_panel=ORDER, help="Set the weight of the tempo."
        ),
    ] = 1.0,
    max_tempo_change: Annotated[
        float | None,
        typer.Option(
            parser=number(0.1, 100),
            metavar="PERCENT",
            rich_help_panel=ORDER,
            help="Set the change of tempo that no transition should exceed (default: none).",
        ),
    ] = None,
    compatible: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="TRACK", help="List the tracks that mix with this file (default: sort)."),
    ] = None,
    playlist: Annotated[
        Path | None,
        output_option("Save the order as a playlist: .m3u8.", ".m3u8", ".m3u"),
    ] = None,
    rekordbox: Annotated[
        Path | None,
        output_option("Save the order for rekordbox, as a playlist with the name of the file: .xml.", ".xml"),
    ] = None,
    notation: Annotated[
        Notation, typer.Option(metavar="|".join(NOTATIONS), rich_help_panel=SCREEN, help="Show keys as 8A, 1m or Am.")
    ] = "camelot",
    bpm: Annotated[
        bool | None,
        typer.Option("--bpm/--no-bpm", rich_help_panel=PROCESSING, help="Analyze files without a tempo, too."),
    ] = None,
    bpm_range: Annotated[
        BpmRange | None,
        bpm_range_option(
            "Add missing tempos, halved or doubled to be in this range, such as 80-160 (default: none).", PROCESSING
        ),
    ] = None,
    as_json: Annotated[bool, json_option("Print one JSON object (default: a table).")] = False,
    quiet: QuietOption = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    no_cache: NoCacheOption = False,
    null: NullOption = False,
    playlist_name: PlaylistNameOption = None,
) -> None:
    """Sort tracks into an order that mixes well by key, tuning and tempo.

    Uses the keys and tempos in the tags, or else in the rekordbox XML, and analyzes files without a key. No music file
    is changed. The page docs/mixing.md explains the costs.
    """
    _check(playlist, rekordbox, compatible, start or end or at, as_json=as_json, quiet=quiet)
    paths = listed(names, null, "mix")
    check_inputs(paths, playlist)
    files = MixFiles(playlist, rekordbox, source_collection(paths, playlist_name, rekordbox))
    silence_native_stderr()

    from stonecli.mixing import mix as mixing
    from stonecli.mixing.transitions import CostRules

    wants_bpm = wants_tempo(bpm, bpm_range)
    rules = CostRules(key_weight, tempo_weight, max_tempo_change)
    options = mixing.MixOptions(rules, wants_bpm, bpm_range if wants_bpm else None, jobs, not no_cache, playlist_name)
    key_model = load_model(model, device)
    with MixScreen(files, options, notation, names, as_json=as_json, quiet=quiet) as screen:
        if compatible:
            found = mixing.compatible(
                paths,
                compatible,
                options,
                model=key_model,
                on_start=screen.start,
                on_done=screen.advance,
                on_result=screen.note,
                on_warning=screen.info,
            )
            screen.show_compatible(found)
        else:
            order = mixing.mix(
                paths,
                options,
                start=start,
                end=end,
                at=_numbered(at),
                model=key_model,
                on_start=screen.start,
                on_done=screen.advance,
                on_result=screen.note,
                on_warning=screen.info,
            )
            screen.show_mix(order)
