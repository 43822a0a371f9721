"""Patterns of chords, guitars and melodies: one function per layer, from a scene to notes in beats."""

from __future__ import annotations

from collections.abc import Sequence

from stonecli_train.corpus.basses import BASSES
from stonecli_train.corpus.melodies import draw_hook, draw_melody, draw_riff
from stonecli_train.corpus.scene import Layer, Scene, near, voiced
from stonecli_train.corpus.score import Note


def _lowest(scene: Scene) -> int:
    return int(scene.choice([48, 50, 52, 55, 57, 60, 62, 64]))


def _stabs(scene: Scene, patterns: Sequence[Sequence[float]], lengths: Sequence[float]) -> list[Note]:
    pattern = patterns[int(scene.rng.integers(len(patterns)))]
    length, lowest = scene.choice(lengths), _lowest(scene)
    return [
        Note(beat, max(0.1, min(length, chord.end - beat + 0.05)), pitch, velocity=92 if beat % 1 == 0 else 82)
        for beat, chord in scene.hits(pattern)
        for pitch in voiced(chord, lowest)
    ]


def pad(scene: Scene) -> list[Note]:
    """Sustained chords."""
    lowest = _lowest(scene)
    return [
        Note(chord.start, chord.duration, pitch, velocity=78)
        for chord in scene.passage.chords
        for pitch in voiced(chord, lowest)
    ]


def chorale(scene: Scene) -> list[Note]:
    """Four-part harmony: the bass of each chord, and three upper voices that move to the nearest chord tones."""
    notes, before = [], [53.0, 60.0, 69.0]
    for chord in scene.passage.chords:
        tones = chord.pitch_classes
        upper = []
        for index, previous in enumerate(before):
            tone = tones[(index + 1) % len(tones)] if scene.rng.random() < 0.6 else tones[index % len(tones)]
            pitch = min((value for value in range(45, 82) if value % 12 == tone), key=lambda v: abs(v - previous))
            upper.append(pitch)
        before = [0.85 * new + 0.15 * rest for new, rest in zip(upper, (53, 60, 69), strict=True)]
        step = chord.duration if chord.duration <= 2 or scene.rng.random() < 0.5 else chord.duration / 2
        start = chord.start
        while start < chord.end - 1e-6:
            for pitch in (near(chord.bass, 40), *upper):
                notes.append(Note(start, min(step, chord.end - start), pitch, velocity=82))
            start += step
    return notes


def stabs(scene: Scene) -> list[Note]:
    """Short syncopated chords."""
    patterns = (
        [0.5, 1.5, 2.5, 3.5],
        [0, 0.75, 1.5, 2.5, 3.25],
        [0, 1.5, 3],
        [0, 0.75, 1.5, 2.25, 3],
        [0.75, 2.25],
        [1, 3],
    )
    return _stabs(scene, patterns, (0.2, 0.4, 0.8))


def skank(scene: Scene) -> list[Note]:
    """The off-beat guitar of reggae."""
    return _stabs(scene, ([1, 3], [0.5, 1.5, 2.5, 3.5]), (0.2, 0.35))


def bubble(scene: Scene) -> list[Note]:
    """The off-beat organ of reggae."""
    return _stabs(scene, ([0.5, 0.75, 1.5, 1.75, 2.5, 2.75, 3.5, 3.75], [0.5, 1.5, 2.5, 3.5]), (0.2, 0.3))


def comp(scene: Scene) -> list[Note]:
    """Comping in jazz and soul, with a chord at every chord change."""
    patterns = ([0, 1.5], [1, 2.5], [0.5, 2, 3.5], [0, 2], [0, 1, 2, 3], [0, 2.5])
    notes = _stabs(scene, patterns, (0.4, 0.8, 1.0, 2.0))
    struck = {round(note.start, 2) for note in notes}
    lowest = _lowest(scene)
    for chord in scene.passage.chords:
        if round(chord.start, 2) not in struck:
            notes += [Note(chord.start, min(chord.duration, 2), pitch, velocity=80) for pitch in voiced(chord, lowest)]
    return notes


def block(scene: Scene) -> list[Note]:
    """Chords on the beats or at each change, with the bass below."""
    pattern = ([0], [0, 2], [0, 1, 2, 3])[int(scene.rng.integers(3))]
    lowest = _lowest(scene)
    notes = []
    beats = {round(beat, 3): chord for beat, chord in scene.hits(pattern)}
    beats |= {round(chord.start, 3): chord for chord in scene.passage.chords}
    for beat, chord in sorted(beats.items()):
        length = min(4.0, max(0.1, chord.end - beat))
        notes += [Note(beat, length, pitch, velocity=82) for pitch in voiced(chord, lowest)]
        if beat == round(chord.start, 3):
            notes.append(Note(beat, length, near(chord.bass, 36), velocity=85))
    return notes


def strum(scene: Scene) -> list[Note]:
    """A strummed guitar, with downstrokes on the beats and upstrokes between."""
    pattern = ([0, 1, 1.5, 2.5, 3, 3.5], [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5], [0, 1, 2, 3], [0, 1.5, 2, 3.5])[
        int(scene.rng.integers(4))
    ]
    lowest = int(scene.choice([40, 43, 45, 48]))
    notes = []
    for beat, chord in scene.hits(pattern):
        strings = voiced(chord, lowest)
        strings += [pitch + 12 for pitch in strings[:3]]
        down = beat % 1 == 0
        for index, pitch in enumerate(strings if down else strings[:2:-1]):
            notes.append(Note(beat + 0.02 * index, 0.7, pitch, velocity=85 if down else 70))
    return notes


def power(scene: Scene) -> list[Note]:
    """Power chords in eighths or longer; sometimes full chords."""
    step, octave = scene.choice([0.5, 0.5, 1.0, 4.0]), scene.rng.random() < 0.6
    full = scene.rng.random() < 0.3
    notes = []
    for chord in scene.passage.chords:
        root = near(chord.root, 40)
        shape = [root, root + (7 if 6 not in chord.intervals else 6)] + [root + 12] * octave
        if full:
            shape = [root, *(root + 12 + value % 12 for value in chord.intervals[:3])]
        start = chord.start
        while start < chord.end - 1e-6:
            length = min(step, chord.end - start)
            notes += [Note(start, 0.95 * length, pitch, velocity=95) for pitch in shape]
            start += step
    return notes


def chug(scene: Scene) -> list[Note]:
    """Fast palm-muted notes on the tonic or root, with power chords between."""
    step, tonic = scene.choice([0.25, 0.5, 0.5]), near(scene.passage.key.tonic, 38)
    pattern = scene.rng.random(16) < scene.rng.uniform(0.4, 0.8)
    on_tonic = scene.rng.random() < 0.5
    notes = []
    for chord in scene.passage.chords:
        start, index, root = chord.start, 0, near(chord.root, 38)
        while start < chord.end - 1e-6:
            if pattern[index % 16]:
                notes.append(Note(start, 0.4 * step, tonic if on_tonic else root, velocity=86))
            else:
                notes += [Note(start, 0.9 * step, pitch, velocity=96) for pitch in (root, root + 7)]
            start, index = start + step, index + 1
    return notes


def riff(scene: Scene) -> list[Note]:
    """A riff of a synthesizer."""
    return draw_riff(scene.rng, scene.passage.key, scene.chords, scene.beats, int(scene.choice([36, 45, 48, 57])))


def riff_guitar(scene: Scene) -> list[Note]:
    """A riff of a guitar, in single notes or fifths, sometimes doubled an octave lower."""
    notes = draw_riff(scene.rng, scene.passage.key, scene.chords, scene.beats, 40)
    if scene.rng.random() < 0.5:
        notes = [*notes, *(Note(note.start, note.duration, note.pitch + 7) for note in notes)]
    if scene.rng.random() < 0.7:
        notes = [*notes, *(Note(note.start, note.duration, note.pitch - 12) for note in notes if note.pitch < 60)]
    return notes


def hook(scene: Scene) -> list[Note]:
    """The loop of a rap bed."""
    return draw_hook(scene.rng, scene.passage.key, scene.chords, scene.beats)


def drone(scene: Scene) -> list[Note]:
    """Tonic and fifth, sustained or pulsing."""
    tonic, step = near(scene.passage.key.tonic, int(scene.choice([36, 48]))), scene.choice([0.5, 4.0, 8.0])
    third = tonic + 12 + (4 if scene.passage.key.mode == "major" else 3)
    shape = [tonic, tonic + 7] + [third] * (scene.rng.random() < 0.5)
    return [
        Note(index * step, 0.95 * step, pitch, velocity=75)
        for index in range(int(scene.beats / step) + 1)
        for pitch in shape
    ]


def _broken(scene: Scene, steps: Sequence[float], lowest: int, length: float) -> list[Note]:
    step = scene.choice(steps)
    orders = ([0, 1, 2, 1], [0, 2, 1, 2], [0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3], [0, 1, 2, 3, 4, 5, 4, 3])
    order = orders[int(scene.rng.integers(len(orders)))]
    notes = []
    for chord in scene.passage.chords:
        tones = voiced(chord, lowest)
        tones += [pitch + 12 for pitch in tones]
        start, index = chord.start, 0
        while start < chord.end - 1e-6:
            notes.append(
                Note(start, min(length * step, chord.end - start + 1), tones[order[index % len(order)] % len(tones)])
            )
            start, index = start + step, index + 1
    return notes


def arp(scene: Scene) -> list[Note]:
    """A fast arpeggio."""
    return _broken(scene, (0.25, 0.25, 0.5), _lowest(scene), scene.choice([0.8, 1.5]))


def pick(scene: Scene) -> list[Note]:
    """A picked guitar with ringing strings and the root below."""
    notes = _broken(scene, (0.5, 0.25), int(scene.choice([48, 50, 52, 55])), 3.0)
    return [
        *notes,
        *(Note(chord.start, min(chord.duration, 3), near(chord.bass, 40)) for chord in scene.passage.chords),
    ]


def alberti(scene: Scene) -> list[Note]:
    """Alberti bass: low, high, middle, high."""
    step, lowest = scene.choice([0.5, 0.5, 0.25]), int(scene.choice([45, 48, 50, 52]))
    notes = []
    for chord in scene.passage.chords:
        tones = voiced(chord, near(chord.bass, lowest))[:3]
        start, index = chord.start, 0
        while start < chord.end - 1e-6:
            notes.append(Note(start, step, tones[(0, -1, 1, -1)[index % 4] % len(tones)], velocity=74))
            start, index = start + step, index + 1
    return notes


def ostinato(scene: Scene) -> list[Note]:
    """A repeated broken chord, as of low strings."""
    return _broken(scene, (0.25, 0.5), 43, 0.7)


def montuno(scene: Scene) -> list[Note]:
    """The syncopated broken chords in octaves of Latin pianos."""
    lowest = int(scene.choice([55, 57, 60]))
    notes = []
    for beat, chord in scene.hits([0, 0.5, 1.5, 2, 2.5, 3.5]):
        tones = voiced(chord, lowest)
        pitch = tones[int(beat * 2) % len(tones)]
        notes += [Note(beat, 0.4, pitch), Note(beat, 0.4, pitch + 12)]
    return notes


def double_stop(scene: Scene) -> list[Note]:
    """Two notes of the chord once or twice per bar, as a fiddler plays them."""
    lowest = int(scene.choice([55, 57, 60, 62]))
    return [
        Note(beat, 0.8, pitch, velocity=70)
        for beat, chord in scene.hits([0, 2] if scene.rng.random() < 0.5 else [0])
        for pitch in voiced(chord, lowest)[:2]
    ]


def shuffle(scene: Scene) -> list[Note]:
    """Boogie: the root with alternating fifth and sixth."""
    return [
        Note(beat, 0.45, pitch, velocity=86)
        for beat, chord in scene.hits([index / 2 for index in range(8)])
        for pitch in (near(chord.root, 40), near(chord.root, 40) + (9 if int(beat) % 2 else 7))
    ]


def lead(scene: Scene) -> list[Note]:
    """The song's melody, or a random one."""
    if scene.passage.melody and scene.rng.random() < 0.8:
        shift = int(scene.choice([0, 0, 0, 12, -12]))
        return [Note(note.start, note.duration, note.pitch + shift, velocity=100) for note in scene.passage.melody]
    return draw_melody(scene.rng, scene.passage.key, scene.chords, scene.beats, scene.style.loops)


LAYERS: dict[str, Layer] = BASSES | {
    function.__name__: function
    for function in (
        pad, chorale, stabs, skank, bubble, comp, block, strum, power, chug, riff, riff_guitar, hook, drone, arp, pick,
        alberti, ostinato, montuno, double_stop, shuffle, lead,
    )
}  # fmt: skip
"""All layers by name."""
