"""Print the analysis of one file: key, alternatives, key over time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stonecli.detection.estimate import KeyEstimate
from stonecli.key import Key
from stonecli.mixing.transitions import key_transition
from stonecli.output.records import ALTERNATIVES
from stonecli.tempo.bpm import BpmRange, fold_tempo, rounded_bpm
from stonecli.terminal.screen import KeyStyle, Line, Screen
from stonecli.terminal.timeline import timeline
from stonecli.util.text import clock, printable

if TYPE_CHECKING:
    from stonecli.tempo.estimate import TempoEstimate

BAR_WIDTH = 24


def print_analysis(
    screen: Screen, path: Path, estimate: KeyEstimate, *, per_window: bool, bpm_range: BpmRange | None = None
) -> None:
    """Print the analysis of the file at ``path``; with ``per_window``, one line per window.

    The tempo is halved or doubled into ``bpm_range``.
    """
    lines: list[Line] = [[(printable(path.name), "bold")]]
    if estimate.key is None:
        lines.append(
            [("  ", ""), ("no key: stone finds nothing tonal", "warning"), (f"  {clock(estimate.duration)}", "")]
        )
    else:
        lines += _estimate_lines(screen, estimate, estimate.key)
    if estimate.tempo is not None:
        lines += [[("  ", ""), (_tempo_text(estimate.tempo, bpm_range), "")]]
    if per_window:
        lines += _window_lines(estimate)
    for line in [*lines, []]:
        screen.show(line)


def _estimate_lines(screen: Screen, estimate: KeyEstimate, key: Key) -> list[Line]:
    names: Line = [("  ", ""), _key_text(key, key.name), ("   Camelot ", ""), _key_text(key, key.camelot)]
    names += [("   Open Key ", ""), _key_text(key, key.open_key)]
    facts = f"  confidence {estimate.confidence:.0%}   {clock(estimate.duration)}"
    if estimate.tuning_cents is not None:
        facts += f"   A = {440 * 2 ** (estimate.tuning_cents / 1200):.1f} Hz ({round(estimate.tuning_cents):+d} cents)"
    if estimate.tuning_confidence is not None:
        facts += f", tuning confidence {estimate.tuning_confidence:.0%}"
    if estimate.other_name is not None:
        other = estimate.other_name
        names += [("   or ", ""), _key_text(other, f"{other.name} {other.camelot}"), (": between the two", "")]
    lines: list[Line] = [names, [(facts, "")], []]
    lines += [[("  ", ""), *_bar(candidate, share)] for candidate, share in estimate.alternatives[: 1 + ALTERNATIVES]]
    lines += [[], *_mixing_lines(key), [], *timeline(screen, estimate.segments)]
    if len(estimate.segments) > 1:
        lines += [[], [("  key over time", "")]]
        for segment in estimate.segments:
            time = f"  {clock(segment.start)} - {clock(segment.end)}  "
            lines.append([(time, ""), _key_text(segment.key, f"{segment.key.camelot:4}{segment.key.name}")])
        first, last = estimate.segments[0].key, estimate.segments[-1].key
        begin: Line = [("  starts in ", ""), _key_text(first, first.camelot)]
        lines.append([*begin, (", ends in ", ""), _key_text(last, last.camelot)])
    return lines


def _tempo_text(tempo: TempoEstimate, bpm_range: BpmRange | None) -> str:
    if tempo.bpm is None:
        return "no tempo: stone finds no beat"
    steady = "steady" if tempo.is_steady else "not steady"
    bpm = fold_tempo(tempo.bpm, *bpm_range) if bpm_range else tempo.bpm
    other = f" (or {_bpm(tempo.alternative)})" if tempo.alternative is not None else ""
    if bpm != tempo.bpm:
        other = f" (estimated as {_bpm(tempo.bpm)})"
    return f"{_bpm(bpm)} BPM{other}   confidence {tempo.confidence:.0%}   {steady}"


def _bpm(bpm: float) -> str:
    return f"{rounded_bpm(bpm):.2f}".removesuffix(".00")


def _mixing_lines(key: Key) -> list[Line]:
    """The keys that mix smoothly, and those that mix with an audible change (docs/mixing.md)."""
    lines = [_keys_line("  mixes with ", [key, *key.neighbors()])]
    for name in ("diagonal", "energy boost", "parallel"):
        lines.append(_keys_line(f"  {name:13}", [other for other in Key.all() if key_transition(key, other) == name]))
    return lines


def _keys_line(heading: str, keys: Iterable[Key]) -> Line:
    line: Line = [(heading, "")]
    for key in keys:
        line += [_key_text(key, key.camelot), (f" {key.musical}   ", "")]
    return line


def _window_lines(estimate: KeyEstimate) -> list[Line]:
    lines: list[Line] = [[], [("  window by window", "")]]
    for window in estimate.windows:
        time: Line = [(f"  {clock(window.start)} - {clock(window.end)}  ", "")]
        found: Line = [("-   nothing tonal", "")] if window.key is None else _bar(window.key, window.confidence)
        lines.append(time + found)
    return lines


def _bar(key: Key, share: float) -> Line:
    filled = round(share * BAR_WIDTH)
    bar: Line = [("━" * filled, KeyStyle(key, is_bar=True)), ("·" * (BAR_WIDTH - filled), "track")]
    return [_key_text(key, f"{key.camelot:4}{key.musical:4}"), (" ", ""), *bar, (f" {share:4.0%}", "")]


def _key_text(key: Key, text: str) -> tuple[str, KeyStyle]:
    return text, KeyStyle(key)
