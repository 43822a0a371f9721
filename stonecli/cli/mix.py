"""``stone mix``: an order of tracks that mixes well, or the tracks that mix with one of them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    check_target,
    fail,
    fail_without_music,
    listed,
    load_model,
    one_line_errors,
    output_console,
    print_json,
    silence_native_stderr,
)
from stonecli.cli.options import (
    FILES,
    PROCESSING,
    SCREEN,
    DeviceOption,
    JobsOption,
    ModelOption,
    NoCacheOption,
    NullOption,
    file_with_ending,
    json_option,
    wants_tempo,
)
from stonecli.cli.options import bpm_range as parse_bpm_range
from stonecli.cli.running import Errors, progress_bar
from stonecli.key import NOTATIONS, Notation
from stonecli.tempo.bpm import BpmRange

if TYPE_CHECKING:
    from stonecli.jobs import Outcome
    from stonecli.library.walk import Finding
    from stonecli.mixing.mix import MixTrack
    from stonecli.model.session import KeyModel

NO_KEY = "no key detected; not in the mix"


@one_line_errors
def mix(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Mix these files and folders, or - for a list on stdin.")
    ],
    start: Annotated[
        Path | None, typer.Option(metavar="TRACK", help="Start with this file: its path or name (default: any).")
    ] = None,
    end: Annotated[
        Path | None, typer.Option(metavar="TRACK", help="End with this file: its path or name (default: any).")
    ] = None,
    compatible: Annotated[
        Path | None, typer.Option(metavar="TRACK", help="List the tracks that mix with this file (default: sort).")
    ] = None,
    playlist: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".m3u8", ".m3u"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save the order as a playlist: .m3u8.",
        ),
    ] = None,
    rekordbox: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".xml"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save the order as a collection for rekordbox: .xml.",
        ),
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
        typer.Option(
            parser=parse_bpm_range,
            metavar="LOW-HIGH",
            rich_help_panel=PROCESSING,
            help="Analyze files without a tempo, and fold it into a range: 80-160 (default: none).",
        ),
    ] = None,
    as_json: Annotated[bool, json_option("Print one JSON object (default: a table).")] = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    no_cache: NoCacheOption = False,
    null: NullOption = False,
) -> None:
    """Sort tracks into an order that mixes well by key, tuning and tempo.

    Uses the keys and tempos in the tags, and analyzes files without a key. No music file is changed. The page
    docs/mixing.md explains the costs.
    """
    for target, option in ((playlist, "--playlist"), (rekordbox, "--rekordbox")):
        check_target(target, option)
    if compatible and (start or end or playlist or rekordbox):
        raise typer.BadParameter(
            "cannot be combined with --start, --end, --playlist or --rekordbox", param_hint="--compatible"
        )
    given, paths = paths, listed(paths, null)
    silence_native_stderr()

    from stonecli.library.walk import find_music

    findings = list(find_music(paths))
    music = [finding.path for finding in findings if finding.error is None]
    start, end = _named(start, music, "--start"), _named(end, music, "--end")
    compatible = _named(compatible, music, "--compatible")
    named = [path for path in (start, end, compatible) if path is not None]
    if not all(path in music for path in named):
        findings = list(find_music([*named, *paths]))
    bpm = wants_tempo(bpm, bpm_range)
    read = _read(findings, load_model(model, device), jobs, use_cache=not no_cache, bpm=bpm, bpm_range=bpm_range)
    if not findings:
        fail_without_music(given)
    has_keys = any(track.track for track in read.tracks)
    if compatible:
        _show_compatible(read, compatible, notation, as_json=as_json)
    elif has_keys or as_json:  # otherwise each file has a line on standard error, and the table would be empty
        _show_mix(read, start, end, playlist, rekordbox, notation, as_json=as_json)
    if read.errors.count or not has_keys:
        raise typer.Exit(EXIT_FAILED)


@dataclass(frozen=True)
class _Tracks:
    """The tracks, records of the files that are not in the mix, and the errors that were printed."""

    tracks: list[MixTrack]
    left_out: list[dict[str, Any]]
    errors: Errors


def _read(
    findings: list[Finding],
    model: KeyModel,
    jobs: int | None,
    *,
    use_cache: bool,
    bpm: bool,
    bpm_range: BpmRange | None,
) -> _Tracks:
    """Read the tracks with a progress bar, and print files that fail or have no key."""
    from stonecli.mixing.mix import read_tracks

    read = _Tracks([], [], Errors())

    def on_result(outcome: Outcome[Path, MixTrack]) -> None:
        if outcome.result is not None:
            read.tracks.append(outcome.result)
        if outcome.result is None or outcome.result.track is None:
            read.left_out.append({"path": str(outcome.item), "error": outcome.error})
        if outcome.error is not None:
            read.errors.show(outcome.item, outcome.error)
        elif outcome.result is not None and outcome.result.track is None:
            read.errors.note(outcome.item, NO_KEY)

    with progress_bar(read.errors.console, read.errors.console) as progress:
        if read.errors.console.is_terminal:
            read.errors.console = progress.console
        advance = partial(progress.advance, progress.add_task("", total=sum(one.error is None for one in findings)))
        if read_tracks(
            findings,
            on_result,
            model=model,
            jobs=jobs,
            use_cache=use_cache,
            bpm=bpm,
            bpm_range=bpm_range,
            on_done=advance,
        ):
            fail("interrupted", EXIT_INTERRUPTED)
    return read


def _show_compatible(read: _Tracks, path: Path, notation: Notation, *, as_json: bool) -> None:
    from stonecli.mixing.mix import compatible
    from stonecli.terminal.mix import compatible_record, print_rows

    chosen = _find(read.tracks, path)
    if chosen.track is None:
        fail(f"{path}: no key detected, so no track can be compared with it")
    rows = compatible(chosen.track, [track for track in read.tracks if track is not chosen])
    if as_json:
        print_json(compatible_record(chosen, rows, read.left_out))
    else:
        print_rows(output_console(), [(chosen, None), *rows], notation)


def _show_mix(
    read: _Tracks,
    start: Path | None,
    end: Path | None,
    playlist: Path | None,
    rekordbox: Path | None,
    notation: Notation,
    *,
    as_json: bool,
) -> None:
    from stonecli.mixing.mix import harmonic_mix
    from stonecli.output.playlist import save_playlist
    from stonecli.output.rekordbox import save_rekordbox
    from stonecli.terminal.mix import mix_record, playlist_entries, print_mix

    first, last = (_find(read.tracks, path) if path else None for path in (start, end))
    try:
        result = harmonic_mix(read.tracks, first, last)
    except ValueError as error:
        fail(str(error), EXIT_USAGE)
    if as_json:
        print_json(mix_record(result, read.left_out))
    else:
        print_mix(output_console(), result, notation)
    if playlist:
        save_playlist(playlist, playlist_entries(result))
    if rekordbox:
        save_rekordbox(rekordbox, playlist_entries(result), notation, rekordbox.stem)


def _named(wanted: Path | None, music: list[Path], option: str) -> Path | None:
    """The file named by an option: a path, or a name in ``music``, in any case, with or without the extension."""
    if wanted is None or wanted.is_file():
        return wanted
    parts = _parts(wanted)
    by_name = [path for path in music if path.parts[-len(parts) :] == wanted.parts]
    by_name = by_name or [path for path in music if _parts(path)[-len(parts) :] == parts]
    by_stem = [path for path in music if _parts(path.with_suffix(""))[-len(parts) :] == parts]
    found = by_name or by_stem
    if not found:
        raise typer.BadParameter(
            f"{wanted}: no such file, and none with this name in the given paths", param_hint=option
        )
    if len(found) > 1:
        names = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
        raise typer.BadParameter(f"{wanted}: {len(found)} files have this name; choose one: {names}", param_hint=option)
    return found[0]


def _parts(path: Path) -> tuple[str, ...]:
    """The parts of the path without case, and with composed accents: macOS stores accents apart from their letters."""
    return tuple(unicodedata.normalize("NFC", part.casefold()) for part in path.parts)


def _find(tracks: list[MixTrack], path: Path) -> MixTrack:
    """The track of the file at ``path``; if it could not be read, the program ends."""
    from stonecli.mixing.mix import track_of

    try:
        return track_of(tracks, path)
    except ValueError as error:
        fail(str(error))
