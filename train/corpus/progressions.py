"""Chord loops and progressions of modern styles in roman numerals, in random keys.

Degrees are those of the major or natural minor scale; degrees with an accidental are relative to the major scale
(``bVII``, ``bII``). Modal loops are listed under the mode of their third: ``i IV`` is dorian and counts as minor,
``I bVII IV I`` is mixolydian and counts as major. Every fifth loop of a list is held out, for ``--held-out``.
"""

from __future__ import annotations

import numpy as np

from stonecli.key import Key, Mode
from stonecli_train.corpus.harmony import parse_roman
from stonecli_train.corpus.score import Chord, Note, Passage

SOURCE = "styles"

LOOPS: dict[str, dict[Mode, tuple[str, ...]]] = {
    "electronic": {
        "minor": (
            "i VI III VII", "i VII VI VII", "i", "i VI VII i", "i iv", "i i VI VII", "i VI iv v", "i III VII iv", "i v",
            "i VII", "i VI", "i VII VI V", "iv VI i VII", "i iv VI v", "i7 IV7", "i i i VII", "VI VII i i", "i bII",
            "i VI i VII", "i III VI VII", "i iv v i", "VI VII i III", "i VII iv VI", "i9 iv9", "i v VI iv", "i III",
            "i7 iv7 VImaj7 v7", "i VI III v", "i i iv v", "i7",
        ),
        "major": (
            "I V vi IV", "vi IV I V", "I IV", "IV V I vi", "I vi IV V", "I", "I bVII IV I", "IV I V vi", "I iii IV V",
            "IVmaj7 Imaj7", "I V IV V", "ii V I I", "I IV vi V", "IV V iii vi", "I bVII", "Imaj7 IVmaj7", "I IV V IV",
            "I ii IV I", "I V vi iii IV I IV V", "I7",
        ),
    },
    "beds": {  # of rap: few chords
        "minor": (
            "i", "i VI", "i i i VII", "i VI V", "i VI i V", "i iv", "i VII VI V", "i bII", "i i VI VI", "i VI VII i",
            "i iv VI V", "i7 iv7", "i v", "i VI iv V", "i III", "i i iv i",
        ),
        "major": ("I", "I vi", "Imaj7 vi7", "I IV", "ii7 V7 Imaj7 Imaj7", "I bVII", "I I IV I", "I iii IV iv"),
    },
    "pop": {
        "minor": (
            "i VI III VII", "i VII VI V", "i iv VII III", "i VI iv V", "i III VII VI", "i v VI VII", "i iv i V",
            "i VII III VI", "VI VII i i", "i iv v i", "i III iv VI", "i V VI III iv i iv V", "i iiø7 V i", "i VI VII V",
            "i IV VI V", "i VII i VI", "i IV",
        ),
        "major": (
            "I V vi IV", "I vi IV V", "vi IV I V", "I IV V V", "I vi ii V", "I iii IV V", "I IV vi V", "I V ii IV",
            "IV I V vi", "I IV I V", "I V IV I", "I ii IV V", "I V vi iii IV I IV V", "I III IV iv", "I IV ii V", "I V",
            "I iv I V", "Imaj7 IVmaj7", "I I IV V", "IV V I I", "I IV iv I", "I bVII IV I", "I V/vi vi IV",
        ),
    },
    "rock": {
        "minor": (
            "i VII VI VII", "i VI VII", "i III VII IV", "i IV", "i VII i VII", "i III IV VI", "i VII VI V", "i iv v i",
            "i VII IV i", "i", "i VI III VII", "i v iv i", "i i III VII", "i III VII i", "i bII i VII", "VI VII i i",
        ),
        "major": (
            "I IV V IV", "I bVII IV I", "I IV I V", "I V IV IV", "I bIII IV I", "I bVII", "I IV", "I bVI bVII I",
            "I V vi IV", "I IV bVII IV", "I IV V I", "I I bVII IV", "I vi IV V", "V IV I I", "I bIII bVII IV",
            "I II IV I",
            "I7 IV7", "I iii IV I",
        ),
    },
    "metal": {
        "minor": (
            "i", "i bII", "i VI", "i VII VI VII", "i i bII i", "i III bII i", "i VI VII i", "i bII VII i", "i iv VI V",
            "i III VI VII", "i i i VI", "i VI III VII", "i v VI bII", "i VI iv V", "i bII III bII",
        ),
        "major": ("I bVII IV I", "I bIII IV I", "I bVI bVII I", "I V vi IV", "I IV V I"),
    },
    "groove": {  # funk, soul, disco, reggae
        "minor": (
            "i7", "i7 IV7", "i iv", "i7 VII", "i VII", "i VII VI VII", "i7 iv7", "i iv v iv", "i v", "i9 IV9", "i7 v7",
            "i VI VII i", "i III IV VI", "i VI iv V", "i iv VII III VI iiø7 V i", "i i iv i", "i VII iv v",
        ),
        "major": (
            "I7", "I7 IV7", "I IV", "I IV V IV", "Imaj7 IVmaj7", "I ii", "Imaj7 ii7", "I vi ii V", "I bVII IV I", "I9",
            "ii7 V7 Imaj7 Imaj7", "I V vi IV", "I IV I V", "I V IV V", "Imaj7 vi7 ii7 V7", "I iii IV V", "I7 bVII",
        ),
    },
    "rnb": {  # slow jams, neo soul: sevenths and ninths, few cadences
        "minor": (
            "i7 iv7", "i9 iv9", "VImaj7 v7 i7 i7", "i7 VImaj7", "i7 VII VImaj7 v7", "VImaj7 VII i7 i7", "i9",
            "i7 IV7", "iv9 v7 i9 i9", "i7 iv7 VImaj7 v7", "VImaj7 i7 VII i7", "i7 v7", "iv7 i7", "i VI III VII",
            "i VII iv VI", "VImaj7 v7 iv7 i7",
        ),
        "major": (
            "Imaj7 IVmaj7", "ii7 V7 Imaj7 Imaj7", "IVmaj7 iii7 ii7 Imaj7", "Imaj7 vi7 ii7 V7", "Imaj7 iii7 IVmaj7 V7",
            "I IV", "IVmaj7 V7 Imaj7 vi7", "Imaj7", "I V vi IV", "Imaj7 ii7", "Imaj7 iii7 vi7 IVmaj7", "I vi IV V",
        ),
    },
    "blues": {
        "minor": (
            "i7 i7 i7 i7 iv7 iv7 i7 i7 VI7 V7 i7 i7", "i i i i iv iv i i v iv i i", "i7 iv7 i7 i7", "i VII VI V",
            "i7 i7 iv7 i7 V7 i7", "i iv i V",
        ),
        "major": (
            "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 I7", "I7 IV7 I7 V7",
            "I7 I7 IV7 I7 V7 I7", "I VI7 II7 V7", "I7 IV7", "I7",
        ),
    },
    "jazz": {
        "minor": (
            "iiø7 V7 i7 i7", "i7 iv7 VII7 IIImaj7 VImaj7 iiø7 V7 i7", "i7 iiø7 V7 i7", "i7 VI7 iiø7 V7", "i7 i7 iv7 i7",
            "iv7 VII7 IIImaj7 VImaj7 iiø7 V7 i i", "i9 IV9", "i i7 iiø7 V7",
        ),
        "major": (
            "ii7 V7 Imaj7 Imaj7", "Imaj7 vi7 ii7 V7", "iii7 VI7 ii7 V7", "Imaj7 IVmaj7 iii7 vi7 ii7 V7 Imaj7 Imaj7",
            "Imaj7 ii7 iii7 ii7", "Imaj7 II7 ii7 V7", "Imaj7 iv7 bVII7 Imaj7", "I6 vi7 ii7 V7",
            "ii7 V7 iii7 VI7 ii7 V7 Imaj7 I",
        ),
    },
    "folk": {
        "minor": (
            "i VII i VII", "i VII VI V", "i iv i V", "i III VII i", "i VII i v", "i IV i VII", "i iv V i",
            "i VII III V",
            "i v i VII", "i VI VII i",
        ),
        "major": (
            "I IV V I", "I V I IV", "I I IV I V V I I", "I IV I V", "I vi IV V", "I bVII I V", "I V vi IV",
            "I IV I I V V I I",
            "I ii V I", "I V IV I", "I IV V IV", "I iii IV V",
        ),
    },
    "classical": {
        "minor": (
            "i iv V i", "i V65 i V", "i iio6 V7 i", "i VI iv V", "i iv64 viio7 i", "i V6 VII III6 iv i6 V V7",
            "i iv VII III VI iiø7 V7 i",
            "i i6 iv V", "i V43 i6 iiø65 V7 i", "i V7 i V7", "i viio6 i6 iv i64 V7 i i", "i V7/iv iv V7", "i VI iio6 V",
            "i v6 iv6 V",
        ),
        "major": (
            "I IV V I", "I V6 vi iii6 IV I6 ii6 V", "I ii6 V7 I", "I V7 I V7", "I vi ii6 V7", "I V65 I V",
            "I IV64 V65 I",
            "I V43 I6 ii65 I64 V7 I I", "I I6 IV V", "I V7/V V7 I", "I vi IV ii V7 I", "I iii vi IV ii V I I",
            "I V/vi vi V7/V V V7 I I",
            "I I7 IV iv I64 V7 I I", "IV I6 ii V7 I I", "I viio6 I6 IV V V7 I I",
        ),
    },
}  # fmt: skip


def draw_loop(rng: np.random.Generator, group: str, mode: Mode, beats: float, held_out: bool) -> Passage:
    """A random loop of ``group`` in a random key of ``mode``, repeated for at least ``beats`` beats.

    Args:
        rng: random generator.
        group: key of ``LOOPS``.
        mode: mode of the key.
        beats: minimum length in beats.
        held_out: whether to draw from the loops that are excluded from training.
    """
    loops = [loop for index, loop in enumerate(LOOPS[group][mode]) if (index % 5 == 3) == held_out]
    loop = loops[int(rng.integers(len(loops)))]
    key = Key(int(rng.integers(12)), mode)
    names = [parse_roman(numeral, key.tonic, mode) for numeral in loop.split()]
    step = (
        8.0 if len(names) == 1 else float(rng.choice([2, 4, 4, 4, 8])) if len(names) < 8 else float(rng.choice([2, 4]))
    )
    if group in ("classical", "folk"):
        step = float(rng.choice([1, 2, 2, 4]))
    chords: list[Chord] = []
    while not chords or chords[-1].end < beats:
        for name in names:
            chords.append(name.at(len(chords) * step, step))
    return Passage(((0.0, key),), chords[-1].end, SOURCE, loop, chords=tuple(chords))


def harmonized(passage: Passage, rng: np.random.Generator) -> Passage:
    """The melody of ``passage`` with simple chords: for each bar, the triad of the key with most of its notes."""
    key = passage.key
    numerals = ("I", "V", "IV", "vi", "ii") if key.mode == "major" else ("i", "VII", "V", "iv", "VI", "III")
    names = [parse_roman(numeral, key.tonic, key.mode) for numeral in numerals]
    bonus = np.array([0.35, 0.2, 0.15, 0.0, 0.0, 0.0][: len(names)]) + rng.uniform(0, 0.15, len(names))
    step = float(passage.beats_per_bar)
    chords: list[Chord] = []
    start = passage.bar_start - step if passage.bar_start > 0 else 0.0
    while start < passage.length:
        weights = np.zeros(12)
        for note in _sounding(passage.melody, start, start + step):
            weights[note.pitch % 12] += note.duration
        fit = [weights[[(name.root + value) % 12 for value in name.intervals]].sum() for name in names]
        # In minor, use a major dominant only if the melody has the leading tone or lacks the subtonic.
        if key.mode == "minor" and weights[(key.tonic + 10) % 12] > weights[(key.tonic + 11) % 12]:
            fit[2] = 0.0
        best = names[int(np.argmax(np.array(fit) / max(weights.sum(), 1e-6) + bonus))]
        first = max(start, 0.0)
        chords.append(best.at(first, start + step - first))
        start += step
    return Passage(
        passage.keys, passage.length, passage.source, passage.origin, tuple(chords), passage.melody,
        beats_per_bar=passage.beats_per_bar, bar_start=passage.bar_start,
    )  # fmt: skip


def _sounding(notes: tuple[Note, ...], start: float, end: float) -> list[Note]:
    return [note for note in notes if start <= note.start < end]
