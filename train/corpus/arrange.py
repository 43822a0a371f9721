"""Arranges a passage in a style: from chords and melody in beats to parts in seconds, for the synthesizers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stonecli_train.corpus.basses import BASSES
from stonecli_train.corpus.drums import draw_drums, draw_percussion
from stonecli_train.corpus.layers import LAYERS
from stonecli_train.corpus.melodies import BLUE_LOOPS, ChordLookup, draw_melody
from stonecli_train.corpus.scene import Scene
from stonecli_train.corpus.score import Chord, Note, Passage
from stonecli_train.corpus.styles import (
    BOWED,
    CHOIRS,
    FLUTES,
    KEYS,
    MALLETS,
    ORGANS,
    PADS,
    REEDS,
    STRINGS,
    STYLES,
    Style,
)
from stonecli_train.corpus.vocals import harmony, held_chords, with_blue_thirds

Role = Literal["bass", "chords", "lead", "drums", "sung", "spoken", "voice"]

LOWEST, HIGHEST = 24, 108  # MIDI range of all parts; notes outside are transposed by octaves
_RANGES: dict[Role, tuple[int, int]] = {
    "bass": (26, 60), "chords": (36, 96), "lead": (43, 100), "sung": (43, 81), "spoken": (40, 64), "voice": (30, 100),
    "drums": (27, 87),
}  # fmt: skip
_GUITARS = frozenset({"power", "chug", "riff_guitar"})
_GUITAR_PROGRAMS = frozenset(range(24, 32))

_KEYBOARDS = frozenset(range(8))
_BAND_LOOPS = frozenset({"pop", "rock", "folk", "blues", "groove"})  # loops of the styles that bands play

_TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7)}


@dataclass(frozen=True, slots=True)
class Tone:
    """A note to render: start and duration in seconds, MIDI pitch, velocity 1..127."""

    start: float
    duration: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """The notes of one instrument.

    Attributes:
        role: role in the arrangement.
        tones: the notes, ascending in time.
        program: General MIDI program, counted from 0; ignored for drums and voices.
        gain: linear gain in the mix, 0..1.2.
        synthesized: whether a numpy synthesizer plays the part instead of a soundfont.
        amplified: whether the part goes through the amplifier simulation.
    """

    role: Role
    tones: tuple[Tone, ...]
    program: int = 0
    gain: float = 1.0
    synthesized: bool = False
    amplified: bool = False


def tempo_of(rng: np.random.Generator, style: Style) -> float:
    """A random tempo of the style, in quarter notes per minute."""
    return float(rng.uniform(*style.bpm))


def arrange(rng: np.random.Generator, passage: Passage, style: Style, bpm: float) -> tuple[Part, ...]:
    """The parts of ``passage`` in ``style``, in seconds.

    Args:
        rng: random generator of the excerpt.
        passage: starts at beat 0 and is as long as the excerpt.
        style: the style.
        bpm: tempo in quarter notes per minute.

    Raises:
        ValueError: the passage has no chords.
    """
    if not passage.chords:
        raise ValueError("no chords")
    passage = replace(passage, chords=tuple(_extended_chords(rng, passage.chords, passage, style)))
    scene = Scene(rng, passage, style, ChordLookup(passage.chords))
    layers = [name for name in style.layers if rng.random() < 0.88]
    if not any(name not in BASSES for name in layers):
        layers = list(style.layers)
    clock = _Clock(rng, bpm, style.swing)
    only_drums = _only_drums(rng, passage.length) if style.drums else None
    parts = [_layer(scene, name, clock, _silences(rng, passage, only_drums)) for name in layers]
    parts += _voices(scene, clock, _silences(rng, passage, only_drums))
    if style.drums and rng.random() < 0.92:
        pattern = style.drums[int(rng.integers(len(style.drums)))]
        hits = draw_drums(rng, pattern, passage.length, passage.beats_per_bar, passage.bar_start)
        if rng.random() < 0.25:
            hits += draw_percussion(rng, passage.length, passage.beats_per_bar, passage.bar_start)
        loud = 10.0 ** (rng.uniform(-8, 6) / 20.0)  # drums are often the loudest part
        parts.append(
            Part("drums", clock.tones(hits, "drums"), 0, 0.8 * loud, rng.random() < max(0.12, 0.7 * style.synth))
        )
    return tuple(part for part in parts if part.tones)


def arrange_score(rng: np.random.Generator, passage: Passage, bpm: float) -> tuple[Part, ...]:
    """The parts of a whole score: each voice on a random instrument, with drums added to popular music."""
    clock = _Clock(rng, bpm, 0.0)
    popular = passage.source == "pop909"
    palettes = (
        KEYS,
        ORGANS,
        STRINGS,
        CHOIRS,
        (*BOWED, *REEDS),
        (56, 57, 58, 60),
        (24, 25, 6, 46),
        (*FLUTES, *REEDS),
        PADS,
    )
    palette = palettes[int(rng.integers(len(palettes)))]
    shared_program = int(rng.choice(palette))
    has_mixed_programs = rng.random() < 0.5
    voices = sorted({note.voice for note in passage.notes})
    parts = []
    for voice in voices:
        notes = [note for note in passage.notes if note.voice == voice]
        if popular:
            parts += _popular_voice(rng, voice, notes, clock)
            continue
        program = int(rng.choice(palette)) if has_mixed_programs else shared_program
        parts.append(Part("voice", clock.tones(notes, "voice"), program, rng.uniform(0.6, 1.1), rng.random() < 0.08))
    if popular and rng.random() < 0.75:
        pattern = str(rng.choice(["rock", "beat", "house", "hiphop", "half", "slow", "dnb"]))
        hits = draw_drums(rng, pattern, passage.length, 4, passage.bar_start)
        parts.append(Part("drums", clock.tones(hits, "drums"), 0, rng.uniform(0.4, 1.2), rng.random() < 0.2))
    return tuple(part for part in parts if part.tones)


def _popular_voice(rng: np.random.Generator, voice: int, notes: list[Note], clock: _Clock) -> list[Part]:
    """POP909's melody, bridge and piano; the piano is sometimes split between bass, chords and pad."""
    pop = STYLES["pop"]
    if voice < 2:
        if rng.random() > (0.8 if voice == 0 else 0.5):
            return []
        shifted = _shifted(notes, int(rng.choice([0, 0, 0, 12, -12])))
        if voice == 0 and rng.random() < 0.45:
            return [Part("sung", clock.tones(shifted, "sung"), 0, rng.uniform(0.6, 1.2), True)]
        program = int(rng.choice(pop.lead))
        return [Part("lead", clock.tones(shifted, "lead"), program, rng.uniform(0.5, 1.0), rng.random() < 0.2)]
    if rng.random() < 0.3:
        return [
            Part("voice", clock.tones(notes, "voice"), int(rng.choice((0, 0, 1, 4, 5, 24, 25))), rng.uniform(0.7, 1.0))
        ]
    split = int(rng.choice([48, 50, 52, 55]))
    high = [note for note in notes if note.pitch >= split]
    lowest: dict[int, Note] = {}
    for note in notes:
        index = round(note.start * 4)
        if note.pitch < split and (index not in lowest or note.pitch < lowest[index].pitch):
            lowest[index] = note
    factor = float(rng.choice([0.6, 1.0, 1.0, 1.5]))
    played = [replace(note, duration=note.duration * factor) for note in high]
    chords = int(rng.choice((*KEYS, 24, 25, 26, 27, *STRINGS, *PADS, *MALLETS)))
    bass = int(rng.choice((32, 33, 34, 35, 38, 39)))
    low = _shifted(list(lowest.values()), int(rng.choice([0, 0, -12])))
    parts = [
        Part("chords", clock.tones(played, "chords"), chords, rng.uniform(0.5, 1.0), rng.random() < 0.25),
        Part("bass", clock.tones(low, "bass"), bass, rng.uniform(0.7, 1.1), rng.random() < 0.25),
    ]
    if rng.random() < 0.4:
        sustained = [replace(note, duration=note.duration * 2.5) for note in high]
        tones = clock.tones(sustained, "chords")
        parts.append(Part("chords", tones, int(rng.choice(PADS)), rng.uniform(0.3, 0.7), rng.random() < 0.3))
    return parts


def _shifted(notes: list[Note], semitones: int) -> list[Note]:
    return [replace(note, pitch=note.pitch + semitones) for note in notes]


class _Clock:
    """Converts beats to seconds, with swing and slight timing jitter."""

    def __init__(self, rng: np.random.Generator, bpm: float, swing: float) -> None:
        self._rng = rng
        self._beat = 60.0 / bpm
        self._swing_delay = float(rng.uniform(0.1, 0.17)) if rng.random() < swing else 0.0  # beats
        self._jitter = float(rng.choice([0.0, 0.004, 0.012]))  # seconds

    def tones(self, notes: list[Note], role: Role) -> tuple[Tone, ...]:
        """The notes in seconds and in the range of ``role``, ascending in time."""
        low, high = _RANGES[role]
        offsets = self._rng.normal(0.0, self._jitter, len(notes)) if self._jitter else np.zeros(len(notes))
        shift = 0
        if notes and role != "drums":  # transpose the whole part, so that the melody is preserved
            middle = float(np.median([note.pitch for note in notes]))
            while middle + shift < low:
                shift += 12
            while middle + shift > high:
                shift -= 12
        tones = []
        for note, offset in zip(notes, offsets.tolist(), strict=True):
            beat = note.start + (self._swing_delay if abs(note.start % 1 - 0.5) < 0.01 else 0.0)
            pitch = note.pitch + shift
            while pitch < LOWEST:
                pitch += 12
            while pitch > HIGHEST:
                pitch -= 12
            velocity = min(127, max(1, note.velocity + int(offset * 500)))
            tones.append(
                Tone(max(0.0, beat * self._beat + offset), max(0.04, note.duration * self._beat), pitch, velocity)
            )
        tones.sort(key=lambda tone: (tone.start, tone.pitch))
        return tuple(tones)


def _extended_chords(
    rng: np.random.Generator, chords: tuple[Chord, ...], passage: Passage, style: Style
) -> list[Chord]:
    """The chords; in some styles, triads are extended with sevenths or ninths of the key.

    Bands add the seventh to the dominant; blues bands add it to the tonic and subdominant of a major key as well.
    """
    if style.loops in _BAND_LOOPS and rng.random() < 0.25:
        blue = passage.key.mode == "major" and style.loops != "pop" and rng.random() < 0.3
        degrees = (0, 5, 7) if blue else (7,)
        return [
            replace(chord, intervals=(0, 4, 7, 10))
            if chord.intervals == _TRIADS["major"] and (chord.root - passage.key.tonic) % 12 in degrees
            else chord
            for chord in chords
        ]
    if rng.random() >= style.extensions:
        return list(chords)
    key, ninth = passage.key, rng.random() < 0.35
    out = []
    for chord in chords:
        intervals = chord.intervals
        degree = (chord.root - key.tonic) % 12
        if intervals == _TRIADS["minor"]:
            intervals = (0, 3, 7, 10)
        elif intervals == _TRIADS["major"]:
            dominant = degree in (7, 10) or (key.mode == "major" and degree in (2, 4, 9))
            intervals = (0, 4, 7, 10) if dominant else (0, 4, 7, 11)
        if ninth and len(intervals) == 4 and degree in (0, 2, 5, 7):
            intervals = (*intervals, 14)
        out.append(replace(chord, intervals=intervals))
    return out


def _layer(scene: Scene, name: str, clock: _Clock, silences: list[tuple[float, float]]) -> Part:
    rng, style = scene.rng, scene.style
    role: Role = "bass" if name in BASSES else "lead" if name in ("lead", "riff", "hook") else "chords"
    pool = style.bass if role == "bass" else style.lead if name == "lead" else style.chords
    if name in _GUITARS:
        pool = tuple(program for program in style.chords if program in (27, 28, 29, 30)) or (29, 30)
    elif name == "pad" and style.loops != "classical":
        pool = (*PADS, *STRINGS, *ORGANS, *CHOIRS)
    program = int(rng.choice(pool))
    notes = [
        note for note in LAYERS[name](scene)
        if 0 <= note.start < scene.beats and not any(start <= note.start < end for start, end in silences)
    ]  # fmt: skip
    amplified = style.guitar_amp and program in _GUITAR_PROGRAMS
    synthesized = rng.random() < style.synth
    gain = rng.uniform(0.45, 1.1)
    tones = clock.tones(notes, role)
    if role == "chords" and program in _GUITAR_PROGRAMS:
        tones = strummed(rng, tones, float(rng.uniform(0.008, 0.03)))
    elif role == "chords" and program in _KEYBOARDS:
        tones = strummed(rng, tones, float(rng.uniform(0.0, 0.006)))
    return Part(role, tones, program, gain, synthesized and not amplified, amplified)


def strummed(rng: np.random.Generator, tones: tuple[Tone, ...], seconds: float) -> tuple[Tone, ...]:
    """The tones with strummed chords: simultaneous onsets are ``seconds`` apart, mostly from low to high.

    Velocities vary between strings; the tones of a chord still end together.
    """
    out: list[Tone] = []
    index = 0
    while index < len(tones):
        chord = [tone for tone in tones[index : index + 12] if tone.start - tones[index].start < 0.003]
        upward = rng.random() < 0.25
        for number, tone in enumerate(chord):
            late = seconds * (len(chord) - 1 - number if upward else number) * rng.uniform(0.6, 1.4)
            late = min(late, 0.7 * tone.duration)
            velocity = int(np.clip(tone.velocity + rng.normal(0.0, 5.0), 1, 127))
            out.append(Tone(tone.start + late, max(0.03, tone.duration - late), tone.pitch, velocity))
        index += len(chord)
    out.sort(key=lambda tone: (tone.start, tone.pitch))
    return tuple(out)


def _voices(scene: Scene, clock: _Clock, silences: list[tuple[float, float]]) -> list[Part]:
    """A singer with the melody and backing vocals, and a rapper, with the probabilities of the style."""
    rng, style, parts = scene.rng, scene.style, []
    if rng.random() < style.sung:
        notes = list(scene.passage.melody)
        if not notes or rng.random() < 0.2:
            notes = draw_melody(rng, scene.passage.key, scene.chords, scene.beats, style.loops)
        notes = [note for note in notes if not any(start <= note.start < end for start, end in silences)]
        key = scene.passage.key
        if key.mode == "major" and style.loops in BLUE_LOOPS and rng.random() < 0.35:
            notes = with_blue_thirds(rng, notes, key, float(rng.uniform(0.2, 0.8)))
        parts.append(Part("sung", clock.tones(notes, "sung"), 0, rng.uniform(0.6, 1.6), True))
        parts += _backing(scene, clock, notes, silences)
    if rng.random() < style.spoken:
        words, beat, center = [], 0.0, int(rng.integers(44, 58))
        while beat < scene.beats:
            if rng.random() < 0.9:
                pitch = center + int(rng.integers(-4, 5))
                words.append(Note(beat, float(rng.choice([0.15, 0.2, 0.25])), pitch))
            beat += float(rng.choice([0.25, 0.25, 0.5, 1.0]))
        parts.append(Part("spoken", clock.tones(words, "spoken"), 0, rng.uniform(0.5, 1.3), True))
    return parts


def _backing(scene: Scene, clock: _Clock, tune: list[Note], silences: list[tuple[float, float]]) -> list[Part]:
    """Backing vocals: a second voice, or sustained chords."""
    rng, drawn = scene.rng, scene.rng.random()
    lines: list[list[Note]] = []
    if drawn < 0.3:
        lines = [harmony(tune, scene.passage.key, scene.chords, above=bool(rng.random() < 0.6))]
    elif drawn < 0.45:
        lines = held_chords(scene.passage.chords, int(scene.choice([52, 55, 57, 60])), int(scene.choice([2, 3])))
    gain = rng.uniform(0.25, 0.7)
    parts = []
    for line in lines:
        sung = [note for note in line if not any(start <= note.start < end for start, end in silences)]
        parts.append(Part("sung", clock.tones(sung, "sung"), 0, gain, True))
    return parts


def _only_drums(rng: np.random.Generator, beats: float) -> tuple[float, float] | None:
    """An interval with drums only, in about one excerpt out of six."""
    if rng.random() > 0.16:
        return None
    length = beats * rng.uniform(0.1, 0.3)
    start = float(rng.choice([0.0, rng.uniform(0, beats - length), beats - length]))
    return start, start + length


def _silences(
    rng: np.random.Generator, passage: Passage, only_drums: tuple[float, float] | None
) -> list[tuple[float, float]]:
    """Intervals in which a part is silent: where only drums play, and sometimes before its entry."""
    silences = [only_drums] if only_drums else []
    if rng.random() < 0.2:
        bars = int(passage.length / passage.beats_per_bar / 2)
        end = float(rng.integers(0, max(1, bars)) * passage.beats_per_bar)
        silences.append((0.0, end) if rng.random() < 0.6 else (passage.length - end, passage.length))
    return silences
