"""Print a mix, or the tracks that mix with a track; convert both to JSON records (docs/formats.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from stonecli.key import Notation
from stonecli.mixing.mix import Compatible, LeftOut, Mix, MixTrack
from stonecli.mixing.transitions import COMPATIBLE_COST, Transition
from stonecli.output.playlist import PlaylistEntry
from stonecli.output.records import key_record
from stonecli.terminal.colors import WARNING, key_style
from stonecli.util.text import printable, shortened

TRANSITION_WIDTH, ENDS_WIDTH, CHANGE_WIDTH = 13, 9, 8
HEADER = ("file", "key", "bpm", "tuning", "move", "cost", "first", "last", "tempo change", "tuning change")
DIGITS = 2
ROUNDING = 0.005  # smaller costs are rounding errors, and not visible in records


def print_mix(console: Console, mix: Mix, notation: Notation) -> None:
    """Print the tracks in order, each with the transition to it, and the total cost."""
    print_rows(console, _rows(mix), notation)
    if console.is_terminal and mix.transitions:
        tracks = f"{len(mix.tracks)} tracks, total cost {mix.cost:.1f}; {_possible_saving(mix)}"
        console.print(Text(tracks), soft_wrap=True)


def print_rows(console: Console, rows: list[tuple[MixTrack, Transition | None]], notation: Notation) -> None:
    """Print one row per track: its key, tempo and tuning, the transition to it, and the file; in a pipe with tabs."""
    if not console.is_terminal:
        print("\t".join(HEADER), file=console.file)
        for track, change in rows:
            move = (change.name if change else "", _cost(change))
            cells = (str(track.path), *_cells(track, notation), *move, *_ends(track, notation), *_changes(change))
            print("\t".join(printable(cell) for cell in cells), file=console.file)
        return
    has_ends = any(_in_and_out(track, notation) for track, _ in rows)
    ends_width = ENDS_WIDTH if has_ends else 0
    width = max(16, console.width - 5 - ends_width - 6 - 7 - 2 - TRANSITION_WIDTH - 2 * CHANGE_WIDTH - 6 - 2)
    console.print(
        Text(
            f"{'key':5}{'in-out' if has_ends else '':{ends_width}}{'BPM':>6}{'cents':>7}"
            f"  {'transition':{TRANSITION_WIDTH}}{'tempo':>{CHANGE_WIDTH}}{'tuning':>{CHANGE_WIDTH}}{'cost':>6}  file",
            "bold",
        )
    )
    for track, change in rows:
        key, bpm, cents = _cells(track, notation)
        style = key_style(track.track.key) if track.track else ""
        both = _in_and_out(track, notation)
        line = Text.assemble((key, style), " " * (5 - len(key)), f"{both:{ends_width}}{bpm:>6}{cents:>7}  ")
        is_poor = change is not None and (change.cost > COMPATIBLE_COST or change.is_over_limit)
        tuning = _changes(change)[1]
        line.append(
            f"{change.name if change else '':{TRANSITION_WIDTH}}{_tempo(change):>{CHANGE_WIDTH}}"
            f"{tuning + ' ct' if tuning else '':>{CHANGE_WIDTH}}{_cost(change):>6}  ",
            WARNING if is_poor else "",
        )
        name = _name(track)
        line.append(shortened(name, width) if cell_len(name) > width else name)
        console.print(line, soft_wrap=True)


def mix_record(mix: Mix) -> dict[str, Any]:
    """The JSON object of ``stone mix``."""
    return {
        "tracks": [_track_record(track, change) for track, change in _rows(mix)],
        "cost": round(mix.cost, DIGITS),
        "bound": round(mix.bound, DIGITS),
        "gap": round(mix.gap, 4),
        "left_out": _left_out(mix.left_out),
    }


def compatible_record(found: Compatible) -> dict[str, Any]:
    """The JSON object of ``stone mix --compatible``."""
    return {
        "track": _track_record(found.track, None),
        "compatible": [_track_record(other, change) for other, change in found.others],
        "left_out": _left_out(found.left_out),
    }


def _left_out(outcomes: Iterable[LeftOut]) -> list[dict[str, Any]]:
    return [{"path": str(outcome.item), "error": outcome.error} for outcome in outcomes]


def playlist_entries(mix: Mix) -> list[PlaylistEntry]:
    """The tracks of the mix for a playlist."""
    return [
        PlaylistEntry(track.path, track.track.key if track.track else None, track.info, track.seconds)
        for track in mix.tracks
    ]


def _rows(mix: Mix) -> list[tuple[MixTrack, Transition | None]]:
    """Each track with the transition to it."""
    return list(zip(mix.tracks, (None, *mix.transitions)[: len(mix.tracks)], strict=True))


def _track_record(track: MixTrack, change: Transition | None) -> dict[str, Any]:
    known = track.track
    return {
        "path": str(track.path),
        "key": key_record(known.key) if known else None,
        "key_from": known.key_from if known else None,
        "first_key": key_record(known.key_in) if known else None,
        "last_key": key_record(known.key_out) if known else None,
        "bpm": known.bpm if known else None,
        "tuning_cents": round(known.tuning_cents, 1) if known and known.tuning_cents is not None else None,
        "move": change.name if change else None,
        "cost": round(change.cost, DIGITS) if change else None,
        "key_cost": round(change.key_cost, DIGITS) if change else None,
        "tuning_cost": round(change.tuning_cost, DIGITS) if change else None,
        "tempo_cost": round(change.tempo_cost, DIGITS) if change else None,
        "tempo_change": _rounded(change.tempo_change, DIGITS) if change else None,
        "tempo_octave": change.tempo_octave if change else None,
        "tuning_change": _rounded(change.tuning_change, 1) if change else None,
    }


def _cells(track: MixTrack, notation: Notation) -> tuple[str, str, str]:
    known = track.track
    if known is None:
        return "", "", ""
    cents = f"{round(known.tuning_cents):+d}" if known.tuning_cents is not None else ""
    return known.key.spelled(notation), f"{known.bpm:.5g}" if known.bpm else "", cents


def _possible_saving(mix: Mix) -> str:
    """How much a better order could save at most, rounded up because stone guarantees it."""
    if mix.cost - mix.bound < ROUNDING:
        return "no order is better"
    return f"at most {math.ceil(100 * mix.gap)}% can be saved"


def _ends(track: MixTrack, notation: Notation) -> tuple[str, str]:
    """First and last key of a track."""
    known = track.track
    return (known.key_in.spelled(notation), known.key_out.spelled(notation)) if known else ("", "")


def _in_and_out(track: MixTrack, notation: Notation) -> str:
    """First and last key, if one of them is not the key of the track."""
    first, last = _ends(track, notation)
    return f"{first}-{last}" if track.track and {first, last} - {track.track.key.spelled(notation)} else ""


def _changes(change: Transition | None) -> tuple[str, str]:
    """The changes of tempo in percent and of tuning in cents; "" where they are unknown."""
    tempo, tuning = (change.tempo_change, change.tuning_change) if change else (None, None)
    return "" if tempo is None else f"{tempo:+.1f}", "" if tuning is None else f"{tuning:+.0f}"


def _tempo(change: Transition | None) -> str:
    """The change of tempo, and ``x2`` or ``/2`` if the track is mixed in at double or half tempo."""
    if change is None or change.tempo_change is None:
        return ""
    if not change.tempo_octave:
        return f"{change.tempo_change:+.1f} %"
    digits = 1 if abs(change.tempo_change) < 9.95 else 0  # more would not fit
    return f"{'x2' if change.tempo_octave > 0 else '/2'} {change.tempo_change:+.{digits}f}%"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _cost(change: Transition | None) -> str:
    return f"{change.cost:.1f}" if change else ""


def _name(track: MixTrack) -> str:
    info = track.info
    if info.title:
        return printable(f"{info.artist} - {info.title}" if info.artist else info.title)
    return printable(track.path.name)
