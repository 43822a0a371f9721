"""Frame-wise chord, bass and melody labels from a score, for the auxiliary losses of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stonecli_train.corpus.arrange import Part, Role, Tone
from stonecli_train.corpus.score import Chord

FRAME_SECONDS = 0.25
UNKNOWN = 255
NO_KEY = "none"  # label of a recording without a key
SCORE = ".score"  # suffix of the file with the annotation of a rendering, in the format of ``.npy``
COLUMNS = ("root", "quality", "bass", "melody")
MAJOR, MINOR, OTHER = 0, 1, 2
"""Qualities of a chord: with a major third; with a minor third and a perfect fifth; all others."""

_PITCHED: tuple[Role, ...] = ("bass", "chords", "lead", "voice", "sung")
_TOLERANCE_SECONDS = 0.05  # for tones that start shortly after the center of a frame

Annotation = npt.NDArray[np.uint8]


def annotate(parts: Sequence[Part], chords: Sequence[Chord], bpm: float, seconds: float) -> Annotation:
    """Labels at the center of each frame, uint8 [frames, 4] by ``COLUMNS``; ``UNKNOWN`` where nothing sounds.

    Args:
        parts: parts of the arrangement, in seconds.
        chords: chords of the score, in beats; empty for a score without chords.
        bpm: quarter notes per minute.
        seconds: length of the excerpt.
    """
    frames = int(seconds / FRAME_SECONDS)
    times = (np.arange(frames) + 0.5) * FRAME_SECONDS
    out = np.full((frames, len(COLUMNS)), UNKNOWN, dtype=np.uint8)
    sounds = np.zeros(frames, dtype=bool)
    for part in parts:
        if part.role in _PITCHED:
            sounds |= _pitches(part.tones, times) >= 0
    for chord in chords:
        inside = sounds & (times >= chord.start * 60.0 / bpm) & (times < chord.end * 60.0 / bpm)
        out[inside, 0] = chord.root
        out[inside, 1] = quality(chord.intervals)
    for column, roles in ((2, ("bass",)), (3, ("lead", "sung"))):  # a singer's notes override those of a lead
        for role in roles:
            for part in parts:
                if part.role == role:
                    pitches = _pitches(part.tones, times)
                    out[pitches >= 0, column] = pitches[pitches >= 0] % 12
    return out


def quality(intervals: Sequence[int]) -> int:
    """Quality of a chord with these ``intervals`` above the root: ``MAJOR``, ``MINOR`` or ``OTHER``."""
    within = {value % 12 for value in intervals}
    if 4 in within and 8 not in within:
        return MAJOR
    return MINOR if 3 in within and 7 in within else OTHER


def _pitches(tones: Sequence[Tone], times: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """MIDI pitch at each time, int64 [times], -1 in silence; if tones overlap, the one with the later onset counts."""
    pitches = np.full(len(times), -1, dtype=np.int64)
    for tone in tones:
        pitches[(times >= tone.start - _TOLERANCE_SECONDS) & (times < tone.start + tone.duration)] = tone.pitch
    return pitches
