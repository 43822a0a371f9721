"""The tempo as the text of a tag, as DJ programs write and read it, and back.

A tempo within 0.05 of a whole number is written as that number, because most music is produced at one, and the
estimate is not exact enough to tell. Other tempos have two decimals, as in rekordbox and Traktor. The ``tmpo`` atom of
MP4 holds a whole number only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stonecli.tempo.bpm import BpmRange, rounded_bpm

if TYPE_CHECKING:
    from stonecli.tags.formats.containers import TagFamily

SLOWEST_BPM, FASTEST_BPM = 20.0, 500.0  # a tag outside this range is wrong; some programs write 0 for "unknown"

_NUMBER = r"[0-9]{1,4}(?:[.,][0-9]{1,30})?"
_BPM = re.compile(rf"\s*({_NUMBER})\s*(?:bpm)?\s*(?:/\s*{_NUMBER}\s*(?:bpm)?\s*)?", re.ASCII | re.IGNORECASE)
_MAX_BPM_TEXT = 100  # characters
_UNKNOWN = re.compile(r"[\s0.,]*", re.ASCII)


def parse_bpm(text: str) -> float | None:
    """The tempo in beats per minute (``128``, ``128,5``, ``128 BPM``), or None if the text is not a valid tempo.

    Of two numbers with a slash between them, such as ``174/87``, the first counts, as in DJ programs.
    """
    match = _BPM.fullmatch(text) if len(text) <= _MAX_BPM_TEXT else None
    if not match:
        return None
    bpm = float(match[1].replace(",", "."))
    return bpm if SLOWEST_BPM <= bpm <= FASTEST_BPM else None


def parse_bpm_range(text: str) -> BpmRange:
    """The lowest and the highest tempo of a range such as ``80-160``, in beats per minute.

    Raises:
        ValueError: the text is not such a range.
    """
    low, _, high = text.partition("-")
    try:
        found = BpmRange(float(low), float(high))
    except ValueError:
        found = BpmRange(0.0, 0.0)
    if not SLOWEST_BPM <= found.low < found.high <= FASTEST_BPM:
        limits = f"{SLOWEST_BPM:g} to {FASTEST_BPM:g}"
        raise ValueError(f"must be two tempos from {limits}, the lower one first, such as 80-160, not {text!r}")
    return found


def says_no_tempo(text: str | None) -> bool:
    """Whether a tempo field is missing, empty or zero, so that a tempo may be written there."""
    return text is None or _UNKNOWN.fullmatch(text[:_MAX_BPM_TEXT]) is not None


def bpm_text(bpm: float, family: TagFamily) -> str:
    """The text that stone writes for a tempo in a kind of tag."""
    value = rounded_bpm(bpm)
    if family == "mp4" or value.is_integer():
        return str(round(value))
    return f"{value:.2f}"
