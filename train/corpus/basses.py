"""Bass patterns: one function per layer, from a scene to notes in beats."""

from __future__ import annotations

from collections.abc import Sequence

from stonecli_train.corpus.scene import Layer, Scene, near
from stonecli_train.corpus.score import Note


def _bass(scene: Scene, pattern: Sequence[float], length: float) -> list[Note]:
    lowest = int(scene.choice([28, 31, 33, 36]))
    notes = [
        Note(
            beat,
            max(0.1, min(length, chord.end - beat)),
            near(chord.bass, lowest) + 7 * int(scene.rng.random() < 0.04),
            velocity=95,
        )
        for beat, chord in scene.hits(pattern)
    ]
    struck = {round(note.start, 2) for note in notes}
    return notes + [
        Note(chord.start, min(chord.duration, 1.0), near(chord.bass, lowest), velocity=95)
        for chord in scene.passage.chords
        if round(chord.start, 2) not in struck and 0.5 not in pattern
    ]


def bass_off(scene: Scene) -> list[Note]:
    """The off-beat bass of house and trance."""
    return _bass(scene, [0.5, 1.5, 2.5, 3.5], 0.45)


def bass_16(scene: Scene) -> list[Note]:
    """Rolling sixteenths around the kick."""
    return _bass(scene, [index / 4 for index in range(16) if index % 4], 0.22)


def bass_8(scene: Scene) -> list[Note]:
    """Steady eighths."""
    return _bass(scene, [index / 2 for index in range(8)], 0.45)


def bass_long(scene: Scene) -> list[Note]:
    """Long notes, one or two per bar."""
    return _bass(scene, ([0], [0, 2], [0, 1.5, 2])[int(scene.rng.integers(3))], 3.8)


def bass_root_fifth(scene: Scene) -> list[Note]:
    """Alternating root and fifth."""
    lowest = int(scene.choice([28, 31, 33]))
    return [
        Note(beat, 0.9, near(chord.bass, lowest) + (7 if index % 2 and chord.bass == chord.root else 0), velocity=92)
        for index, (beat, chord) in enumerate(scene.hits([0, 2]))
    ]


def bass_808(scene: Scene) -> list[Note]:
    """The long, sparse notes of an 808 bass in hip hop."""
    return _bass(scene, ([0, 2.5], [0, 0.75, 2.5], [0])[int(scene.rng.integers(3))], 1.9)


def bass_riff(scene: Scene) -> list[Note]:
    """A syncopated figure of root, fifth, octave and seventh."""
    beats = scene.rng.permutation([0.5, 0.75, 1, 1.5, 2, 2.5, 2.75, 3, 3.5])[: int(scene.rng.integers(3, 6))]
    pattern = [0.0, *sorted(beats.tolist())]
    offsets = [0, *(int(scene.choice([0, 0, 0, 7, 12, -2, 5])) for _ in pattern[1:])]
    lowest = int(scene.choice([28, 31, 33]))
    notes = []
    for start, offset in zip(pattern, offsets, strict=True):
        for beat, chord in scene.hits([start]):
            notes.append(Note(beat, 0.42, near(chord.root, lowest) + offset, velocity=96))
    return notes


def octaves(scene: Scene) -> list[Note]:
    """The octave bass of disco: root on the beat, octave off the beat."""
    lowest = int(scene.choice([28, 31, 33]))
    return [
        Note(beat, 0.4, near(chord.bass, lowest) + 12 * int(beat % 1 >= 0.5), velocity=95)
        for beat, chord in scene.hits([index / 2 for index in range(8)])
    ]


def walk(scene: Scene) -> list[Note]:
    """A walking bass: the bass note at each chord change, chord tones and passing notes between."""
    lowest = int(scene.choice([28, 31]))
    notes = []
    for beat, chord in scene.hits([0, 1, 2, 3]):
        if beat - chord.start < 0.5:
            pitch = near(chord.bass, lowest)
        elif chord.end - beat <= 1.0 and (after := scene.chords.at(chord.end)) is not None:
            pitch = near(after.bass, lowest) + int(scene.choice([-1, 1, -2, 2]))
        else:
            pitch = near(chord.pitch_classes[int(scene.rng.integers(min(3, len(chord.intervals))))], lowest)
        notes.append(Note(beat, 0.95, pitch, velocity=92))
    return notes


BASSES: dict[str, Layer] = {
    function.__name__: function
    for function in (
        bass_off, bass_16, bass_8, bass_long, bass_root_fifth, bass_808, bass_riff, octaves, walk,
    )
}  # fmt: skip
