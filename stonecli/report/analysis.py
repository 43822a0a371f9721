"""One KeyEstimate as a page of the terminal: key, candidates, key over time."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from stonecli.detect import KeyEstimate
from stonecli.key import Key
from stonecli.moves import move_of
from stonecli.report.colors import key_style
from stonecli.report.records import ALTERNATIVES
from stonecli.report.text import clock, printable
from stonecli.report.timeline import timeline

BAR_WIDTH = 24


def print_analysis(console: Console, path: Path, estimate: KeyEstimate, *, per_window: bool) -> None:
    """Print what was heard in the file at ``path``; with ``per_window`` a line for each window."""
    lines = [Text(printable(path.name), "bold")]
    if estimate.key is None:
        lines.append(Text("  no key: nothing tonal is heard", "yellow") + Text(f"  {clock(estimate.duration)}", "dim"))
    else:
        lines += _answer_lines(console, estimate, estimate.key)
    if per_window:
        lines += _window_lines(estimate)
    for line in [*lines, Text()]:
        console.print(line, soft_wrap=True)


def _answer_lines(console: Console, estimate: KeyEstimate, key: Key) -> list[Text]:
    names = Text.assemble("  ", _key_text(key, key.name), "   Camelot ", _key_text(key, key.camelot))
    names += Text.assemble("   Open Key ", _key_text(key, key.open_key))
    facts = f"  confidence {estimate.confidence:.0%}   {clock(estimate.duration)}"
    if estimate.tuning_cents is not None:
        facts += f"   A = {440 * 2 ** (estimate.tuning_cents / 1200):.1f} Hz ({round(estimate.tuning_cents):+d} cents)"
    if estimate.tuning_confidence is not None:
        facts += f", sure by {estimate.tuning_confidence:.0%}"
    if estimate.other_name is not None:
        other = estimate.other_name
        names += Text.assemble("   or ", _key_text(other, f"{other.name} {other.camelot}"), ": it lies between the two")
    lines = [names, Text(facts), Text()]
    lines += [_bar_line(candidate, share) for candidate, share in estimate.alternatives[: 1 + ALTERNATIVES]]
    lines += [Text(), *_mixing_lines(key), Text(), *timeline(console, estimate.segments)]
    if len(estimate.segments) > 1:
        lines += [Text(), Text("  key over time", "dim")]
        for segment in estimate.segments:
            time = f"  {clock(segment.start)} – {clock(segment.end)}  "
            lines.append(Text.assemble(time, _key_text(segment.key, f"{segment.key.camelot:4}{segment.key.name}")))
        first, last = estimate.segments[0].key, estimate.segments[-1].key
        begin = Text.assemble(
            "  begins in ", _key_text(first, first.camelot), ", ends in ", _key_text(last, last.camelot)
        )
        lines.append(begin)
    return lines


def _mixing_lines(key: Key) -> list[Text]:
    """What mixes with the key without being noticed, and what is meant to be heard (docs/mixing.md)."""
    mixes = Text("  mixes with ")
    for other in (key, *key.neighbours()):
        mixes.append_text(_key_text(other, other.camelot)).append(f" {other.musical}   ", "dim")
    lines = [mixes]
    for move in ("diagonal", "energy boost", "parallel"):
        line = Text(f"  {move:13}")
        for other in Key.all():
            if move_of(key, other) == move:
                line.append_text(_key_text(other, other.camelot)).append(f" {other.musical}   ", "dim")
        lines.append(line)
    return lines


def _window_lines(estimate: KeyEstimate) -> list[Text]:
    lines = [Text(), Text("  window by window", "dim")]
    for window in estimate.windows:
        line = Text(f"  {clock(window.start)} – {clock(window.end)}  ")
        if window.key is None:
            line.append("–   nothing tonal", "dim")
        else:
            line.append_text(_bar(window.key, window.confidence))
        lines.append(line)
    return lines


def _bar_line(key: Key, share: float) -> Text:
    return Text("  ") + _bar(key, share)


def _bar(key: Key, share: float) -> Text:
    filled = round(share * BAR_WIDTH)
    bar = Text("━" * filled, key_style(key)) + Text("·" * (BAR_WIDTH - filled), "grey30")
    return Text.assemble(_key_text(key, f"{key.camelot:4}{key.musical:4} "), bar, f" {share:4.0%}")


def _key_text(key: Key, text: str) -> Text:
    return Text(text, key_style(key))
