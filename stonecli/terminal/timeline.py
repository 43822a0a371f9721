"""Draw the key over time as one line: colored blocks with key names, or names only without color."""

from __future__ import annotations

from collections.abc import Sequence

from stonecli.detection.segments import Segment
from stonecli.terminal.screen import KeyStyle, Line, Screen
from stonecli.util.text import clock

MAX_WIDTH = 72  # cells
MIN_WIDTH = 24
MIN_GAP = 2  # cells between two times on the axis


def timeline(screen: Screen, segments: Sequence[Segment], indent: int = 2) -> list[Line]:
    """Two lines: a block per segment with its Camelot code, in proportion to its duration, and the start times.

    Without color, each block starts with a vertical bar: ``|8A--------|9A---``.
    """
    width = max(MIN_WIDTH, min(MAX_WIDTH, screen.width - indent))
    start, end = segments[0].start, segments[-1].end
    colored = screen.has_colors
    scale = width / max(end - start, 1e-9)
    blocks: Line = [(" " * indent, "")]
    axis = " " * indent
    for segment in segments:
        first = round((segment.start - start) * scale)
        last = round((segment.end - start) * scale)
        if last <= first:
            continue  # too short to draw; the list of segments shows it
        label = segment.key.camelot
        if colored:
            text = f" {label}" if last - first > len(label) else label
            blocks.append((text[: last - first].ljust(last - first), KeyStyle(segment.key)))
        else:
            blocks.append((f"|{label}"[: last - first].ljust(last - first, "-"), ""))
        time = clock(segment.start)
        if len(axis) <= indent + first and first + len(time) + MIN_GAP <= width - len(clock(end)):
            axis = axis.ljust(indent + first) + time + " " * MIN_GAP
    axis = axis.ljust(indent + width - len(clock(end))) + clock(end)
    if not colored:
        blocks.append(("|", ""))
    return [blocks, [(axis, "")]]
