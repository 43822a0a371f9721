"""The key over time as one line of a terminal: blocks of colour with letters, or letters alone."""

from __future__ import annotations

from collections.abc import Sequence

from stonecli.detection.segments import Segment
from stonecli.terminal.screen import KeyStyle, Line, Screen
from stonecli.util.text import clock

WIDEST = 72  # cells
NARROWEST = 24
LEAST_BETWEEN = 2  # cells between two times on the axis


def timeline(screen: Screen, segments: Sequence[Segment], indent: int = 2) -> list[Line]:
    """Two lines: a block a segment with its Camelot code, as long as it lasts, and the times where they begin.

    Where there is no colour, each block begins with a bar: ``|8A--------|9A---``.
    """
    width = max(NARROWEST, min(WIDEST, screen.width - indent))
    start, end = segments[0].start, segments[-1].end
    coloured = screen.has_colours
    scale = width / max(end - start, 1e-9)
    blocks: Line = [(" " * indent, "")]
    axis = " " * indent
    for segment in segments:
        first = round((segment.start - start) * scale)
        last = round((segment.end - start) * scale)
        if last <= first:
            continue  # too short to be drawn; the list below has it
        label = segment.key.camelot
        if coloured:
            text = f" {label}" if last - first > len(label) else label
            blocks.append((text[: last - first].ljust(last - first), KeyStyle(segment.key, is_block=True)))
        else:
            blocks.append((f"|{label}"[: last - first].ljust(last - first, "-"), ""))
        time = clock(segment.start)
        if len(axis) <= indent + first and first + len(time) + LEAST_BETWEEN <= width - len(clock(end)):
            axis = axis.ljust(indent + first) + time + " " * LEAST_BETWEEN
    axis = axis.ljust(indent + width - len(clock(end))) + clock(end)
    if not coloured:
        blocks.append(("|", ""))
    return [blocks, [(axis, "dim")]]
