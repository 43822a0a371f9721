"""``stone mix``: an order of tracks that mixes well, or the tracks that mix with one of them."""

from __future__ import annotations

import os
import unicodedata
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    check_target,
    error_console,
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
    NullOption,
    file_with_ending,
    json_option,
)
from stonecli.cli.running import Errors, progress_bar
from stonecli.key import NOTATIONS, Notation

if TYPE_CHECKING:
    from stonecli.library.walk import Finding
    from stonecli.mixing.mix import MixTrack, TrackReader

NO_KEY = "no key, so left out"


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
    as_json: Annotated[bool, json_option("Print one JSON object (default: a table).")] = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", rich_help_panel=PROCESSING, help="Ignore the result cache and store nothing.")
    ] = False,
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

    from stonecli.library.cache import open_cache
    from stonecli.library.walk import find_music
    from stonecli.mixing.mix import TrackReader
    from stonecli.mixing.mix import compatible as compatible_tracks

    findings = list(find_music(paths))
    music = [finding.path for finding in findings if finding.error is None]
    start = _named(start, music, "--start")
    end = _named(end, music, "--end")
    compatible = _named(compatible, music, "--compatible")
    key_model = load_model(model, device)
    errors = Errors(error_console())
    left_out: list[dict[str, Any]] = []
    with ExitStack() as stack:
        cache = None if no_cache else open_cache()
        if cache is not None:
            stack.enter_context(closing(cache))
        named = [path for path in (start, end, compatible) if path is not None]
        if not all(path in music for path in named):
            findings = list(find_music([*named, *paths]))
        tracks = _read(TrackReader(key_model, cache), findings, jobs, errors, left_out)
    if not tracks and not left_out:
        fail_without_music(given)
    has_keys = any(track.track for track in tracks)
    if not (has_keys or as_json or compatible):  # each file has had its line, and an empty table says no more
        raise typer.Exit(EXIT_FAILED)
    console = output_console()
    if compatible:
        from stonecli.terminal.mix import compatible_record, print_rows

        chosen = _find(tracks, compatible)
        if chosen.track is None:
            fail(f"{compatible}: has no key, so nothing can be compared with it")
        rows = compatible_tracks(chosen.track, [track for track in tracks if track is not chosen])
        if as_json:
            print_json(compatible_record(chosen, rows, left_out))
        else:
            print_rows(console, [(chosen, None), *rows], notation)
    else:
        from stonecli.mixing.mix import harmonic_mix
        from stonecli.output.playlist import save_playlist
        from stonecli.output.rekordbox import save_rekordbox
        from stonecli.terminal.mix import mix_record, playlist_entries, print_mix

        try:
            result = harmonic_mix(tracks, _find(tracks, start) if start else None, _find(tracks, end) if end else None)
        except ValueError as error:
            fail(str(error), EXIT_USAGE)
        if as_json:
            print_json(mix_record(result, left_out))
        else:
            print_mix(console, result, notation)
        if playlist:
            save_playlist(playlist, playlist_entries(result))
        if rekordbox:
            save_rekordbox(rekordbox, playlist_entries(result), notation, rekordbox.stem)
    if errors.count or not has_keys:
        raise typer.Exit(EXIT_FAILED)


def _read(
    reader: TrackReader, findings: list[Finding], jobs: int | None, errors: Errors, left_out: list[dict[str, Any]]
) -> list[MixTrack]:
    """All tracks; what failed or has no key is shown, and noted in ``left_out``."""
    from stonecli.jobs import in_threads, stopped_by_signals

    for finding in findings:
        if finding.error is not None:
            left_out.append({"path": str(finding.path), "error": finding.error})
            errors.show(finding.path, finding.error)
    music = [finding.path for finding in findings if finding.error is None]
    tracks = []
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar(errors.console, errors.console))
        if errors.console.is_terminal:
            errors.console = progress.console
        bar = progress.add_task("", total=len(music))
        outcomes = stack.enter_context(in_threads(reader, music, jobs, on_done=lambda _: progress.advance(bar)))
        interrupted = stack.enter_context(stopped_by_signals(outcomes))
        for outcome in outcomes:
            if outcome.result is None:
                left_out.append({"path": str(outcome.item), "error": outcome.error})
                errors.show(outcome.item, outcome.error or "")
            else:
                tracks.append(outcome.result)
                if outcome.result.track is None:
                    left_out.append({"path": str(outcome.item), "error": None})
                    errors.note(outcome.item, NO_KEY)
        if interrupted:
            fail("interrupted", EXIT_INTERRUPTED)
    return tracks


def _named(wanted: Path | None, music: list[Path], option: str) -> Path | None:
    """The file that an option names: by its path, else by its name among ``music``, with or without the ending."""
    if wanted is None or wanted.is_file():
        return wanted
    parts = _parts(wanted)
    by_name = [path for path in music if _parts(path)[-len(parts) :] == parts]
    by_stem = [path for path in music if _parts(path.with_suffix(""))[-len(parts) :] == parts]
    found = by_name or by_stem
    if not found:
        raise typer.BadParameter(f"{wanted}: no such file, nor one of that name in PATH...", param_hint=option)
    if len(found) > 1:
        names = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
        raise typer.BadParameter(f"{wanted}: {len(found)} files have that name; choose one: {names}", param_hint=option)
    return found[0]


def _parts(path: Path) -> tuple[str, ...]:
    """The parts of the path, equal for equal letters: macOS stores accents apart from their letters."""
    return tuple(unicodedata.normalize("NFC", part) for part in path.parts)


def _find(tracks: list[MixTrack], path: Path) -> MixTrack:
    """The track of the file at ``path``, by whatever path it was found."""
    found = [track for track in tracks if track.path == path or os.path.samefile(track.path, path)]  # noqa: PTH121
    return found[0] if found else fail(f"{path}: cannot be read, so it cannot be mixed")
