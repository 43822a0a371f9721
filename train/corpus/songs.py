"""Generated songs: sections of chord loops in one key, arranged for one band, in the styles that DJs mix.

``stonecli_train.corpus.progressions`` draws one loop per excerpt and starts at a random position in it. A song gives
more cues to its key: the loop of the verse mostly starts on the tonic, drums and singers mark its start, and the
sections share the key while their loops differ. The style is drawn first, then the mode, with the share of minor of the
style in music libraries (``MINOR_SHARES``: our estimates from shops and charts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stonecli.key import Key, Mode
from stonecli_train.corpus.arrange import Part, arrange, tempo_of
from stonecli_train.corpus.harmony import parse_roman
from stonecli_train.corpus.melodies import ChordLookup, draw_melody
from stonecli_train.corpus.progressions import LOOPS
from stonecli_train.corpus.score import Chord, Note, Passage
from stonecli_train.corpus.styles import STYLES, Style

SOURCE = "songs"
BEATS_PER_BAR = 4

MINOR_SHARES: dict[str, float] = {
    "house": 0.7, "techno": 0.85, "trance": 0.75, "dubstep": 0.8, "drum_and_bass": 0.8, "electro": 0.65,
    "hiphop": 0.75, "trap": 0.85, "rap_bed": 0.75, "rnb": 0.6, "dance_pop": 0.55, "reggaeton": 0.75, "disco": 0.65,
    "funk": 0.6, "soul": 0.4, "pop": 0.4, "ballad": 0.3, "rock": 0.3, "rock_riff": 0.5, "metal": 0.85,
    "metal_riff": 0.85, "punk": 0.2, "reggae": 0.4, "latin": 0.6, "country": 0.1, "folk": 0.25, "blues": 0.3,
}  # fmt: skip
"""Share of minor keys by style."""

WEIGHTS: dict[str, float] = {
    "house": 2.0, "dance_pop": 2.5, "hiphop": 2.5, "trap": 1.5, "rap_bed": 1.5, "rnb": 2.5, "pop": 2.5, "rock": 2.0,
    "rock_riff": 1.2, "disco": 1.5, "funk": 1.5, "metal": 1.2, "electro": 1.2,
}  # fmt: skip
"""Relative probability of a style; 1 for those not listed."""

_VAMPS: dict[str, float] = {
    "funk": 0.4, "rap_bed": 0.35, "hiphop": 0.3, "trap": 0.3, "techno": 0.45, "house": 0.25, "metal_riff": 0.3,
    "rock_riff": 0.25, "disco": 0.15, "dubstep": 0.3, "drum_and_bass": 0.2, "reggae": 0.15, "rnb": 0.12,
    "reggaeton": 0.15, "blues": 0.1, "latin": 0.1, "electro": 0.2,
}  # fmt: skip
_THIRDLESS_SHARE = 0.25  # share of the vamps whose chords have no third
_ANCHORED_SHARE = 0.8  # share of the main loops that start on the tonic
_AMBIGUOUS_SHARE = 0.4  # share of the main loops that are drawn from _RELATIVES
_PEDAL_SHARE = 0.12  # share of the songs with a pedal point under a section, on the tonic or the fifth

# Loops that relative keys share, apart from their first chord; key detectors confuse these most often.
_RELATIVES: dict[Mode, tuple[str, ...]] = {
    "minor": (
        "i VI III VII",
        "i VII VI VII",
        "i III VII VI",
        "i VI VII i",
        "i VII VI VI",
        "i VII III VI",
        "i VII iv VI",
        "i VI VII VII",
        "i III VI VII",
        "i VI III v",
        "i iv VII III",
        "i v VI VII",
        "i III iv VI",
        "i VI",
        "i i VI VII",
    ),
    "major": (
        "I V vi IV",
        "I vi IV V",
        "I IV vi V",
        "I vi ii V",
        "I iii vi IV",
        "I vi",
        "I ii vi IV",
        "I V ii IV",
        "I iii IV IV",
        "I IV ii V",
        "I vi iii IV",
        "I V vi iii IV I IV V",
        "I ii IV I",
        "I bVII IV I",
    ),
}

# Loops that do not start on the tonic, for sections other than the main one.
_AWAY: dict[Mode, tuple[str, ...]] = {
    "minor": (
        "VI VII i i", "VI VII i", "iv v i i", "VI i VII i", "VI VII v i", "iv VI i VII", "VI III VII i",
        "iv i VI VII", "VI VII i III", "III VII i VI", "VI v i i", "VI iv i VII", "iv i V i", "VII VI i i",
    ),
    "major": (
        "IV V I vi", "vi IV I V", "IV I V vi", "ii V I I", "IV V vi I", "ii IV I V", "vi V IV V", "IV iii ii I",
        "V IV I I", "IV I IV I", "vi ii IV I", "IV vi I V", "IV V I I", "iii vi ii V",
    ),
}  # fmt: skip

# Section sequences as (kind, bars); an excerpt starts at a random section.
_FORMS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("intro", 4), ("verse", 8), ("chorus", 8), ("verse", 8), ("chorus", 8), ("break", 4), ("chorus", 8)),
    (("intro", 4), ("verse", 8), ("bridge", 4), ("chorus", 8), ("verse", 8), ("bridge", 4), ("chorus", 8)),
    (("verse", 8), ("chorus", 4), ("verse", 8), ("chorus", 4), ("break", 8), ("chorus", 8)),
    (("intro", 8), ("verse", 8), ("break", 8), ("chorus", 16), ("break", 4), ("chorus", 8)),
    (("intro", 4), ("verse", 16), ("verse", 16)),
)


@dataclass(frozen=True)
class Section:
    """A section of a song.

    Attributes:
        kind: ``intro``, ``verse``, ``chorus``, ``bridge`` or ``break``.
        start, end: in beats.
    """

    kind: str
    start: float
    end: float


@dataclass(frozen=True)
class Song:
    """A drawn song.

    Attributes:
        passage: starts at beat 0, with chords and melody.
        sections: consecutive sections of the whole passage.
        is_sparse: whether only one part plays besides bass, drums and voice.
    """

    passage: Passage
    sections: tuple[Section, ...]
    is_sparse: bool


def draw_style(rng: np.random.Generator, names: tuple[str, ...]) -> tuple[Style, Mode]:
    """A random style among ``names``, and a random mode, with the probability of minor from ``MINOR_SHARES``.

    Raises:
        ValueError: no name is a style with songs.
    """
    known = [name for name in names if name in MINOR_SHARES]
    if not known:
        raise ValueError(f"no songs in the styles {', '.join(names)}")
    weights = np.array([WEIGHTS.get(name, 1.0) for name in known])
    name = known[int(rng.choice(len(known), p=weights / weights.sum()))]
    return STYLES[name], "minor" if rng.random() < MINOR_SHARES[name] else "major"


def draw_song(rng: np.random.Generator, style: Style, mode: Mode, beats: float, held_out: bool) -> Song:
    """A random song of at least ``beats`` beats in a random key of ``mode``.

    Args:
        rng: random generator.
        style: style of the song.
        mode: mode of its key.
        beats: minimum length in beats.
        held_out: whether to draw from the loops that are excluded from training, every fifth of each list.
    """
    key = Key(int(rng.integers(12)), mode)
    numerals = _draw_loops(rng, style, mode, held_out)
    is_vamp = len(set(numerals["verse"].split())) == 1
    thirdless = is_vamp and rng.random() < _THIRDLESS_SHARE
    step = 8.0 if is_vamp else float(rng.choice([2, 4, 4, 4]))
    pedal_kind = str(rng.choice(["verse", "bridge", "break"])) if rng.random() < _PEDAL_SHARE else ""
    form = _FORMS[int(rng.integers(len(_FORMS)))]
    index = int(rng.integers(len(form)))
    chords: list[Chord] = []
    sections: list[Section] = []
    now = 0.0
    while now < beats:
        kind, bars = form[index % len(form)]
        end = now + bars * BEATS_PER_BAR
        chords += _section_chords(numerals[kind], key, now, end, step, thirdless and kind == "verse")
        if kind == pedal_kind:
            tone = (key.tonic + int(rng.choice([0, 0, 7]))) % 12
            chords = [replace(chord, bass=tone) if chord.start >= now else chord for chord in chords]
        sections.append(Section(kind, now, end))
        now, index = end, index + 1
    melody = _draw_tune(rng, style, key, tuple(chords), sections)
    origin = " | ".join(dict.fromkeys(numerals.values()))
    passage = Passage(((0.0, key),), now, SOURCE, origin, chords=tuple(chords), melody=tuple(melody))
    is_sparse = is_vamp and rng.random() < 0.7
    return Song(passage, tuple(sections), is_sparse)


def arrange_song(rng: np.random.Generator, song: Song, style: Style) -> tuple[tuple[Part, ...], float]:
    """The parts of a song, each of which pauses in some sections, and the tempo in quarter notes per minute."""
    bpm = tempo_of(rng, style)
    parts = arrange(rng, song.passage, style, bpm)
    beat = 60.0 / bpm
    pitched = [number for number, part in enumerate(parts) if part.role in ("chords", "lead", "voice")]
    kept = set(rng.permutation(pitched)[: 1 if song.is_sparse else len(pitched)].tolist())
    leader = int(rng.choice(pitched)) if pitched else -1
    out = []
    for number, part in enumerate(parts):
        if number in pitched and number not in kept:
            continue
        pauses = [
            (section.start * beat, section.end * beat)
            for section in song.sections
            if _pauses(rng, section.kind, part, number == leader)
        ]
        tones = tuple(tone for tone in part.tones if not any(start <= tone.start < end for start, end in pauses))
        if tones:
            out.append(replace(part, tones=tones))
    if not any(part.role not in ("drums", "spoken") for part in out):
        return parts, bpm
    return tuple(out), bpm


def _pauses(rng: np.random.Generator, kind: str, part: Part, leads: bool) -> bool:
    """Whether ``part`` pauses in a section of this kind; the leading part never does."""
    if leads and part.role != "drums":  # at least one pitched part never pauses
        return False
    shares = {
        "intro": {"drums": 0.4, "bass": 0.5, "sung": 0.8, "spoken": 0.8, "chords": 0.5, "lead": 0.4},
        "verse": {"drums": 0.05, "bass": 0.08, "sung": 0.05, "spoken": 0.05, "chords": 0.3, "lead": 0.5},
        "chorus": {"drums": 0.02, "bass": 0.02, "sung": 0.1, "spoken": 0.3, "chords": 0.05, "lead": 0.2},
        "bridge": {"drums": 0.15, "bass": 0.1, "sung": 0.1, "spoken": 0.3, "chords": 0.2, "lead": 0.4},
        "break": {"drums": 0.6, "bass": 0.5, "sung": 0.5, "spoken": 0.5, "chords": 0.3, "lead": 0.4},
    }
    return bool(rng.random() < shares[kind].get(part.role, 0.2))


def _draw_loops(rng: np.random.Generator, style: Style, mode: Mode, held_out: bool) -> dict[str, str]:
    """The loop of each kind of section, in roman numerals."""
    tonic = "i" if mode == "minor" else "I"

    def kept(loops: tuple[str, ...]) -> list[str]:
        return [loop for index, loop in enumerate(loops) if (index % 5 == 3) == held_out]

    def draw(loops: list[str]) -> str:
        return loops[int(rng.integers(len(loops)))]

    own, away = kept(LOOPS[style.loops][mode]), kept(_AWAY[mode])
    home = [loop for loop in own if loop.split()[0].rstrip("maj79") == tonic and len(loop.split()) > 1]
    home = home or [loop for loop in kept(LOOPS["pop"][mode]) if loop.split()[0] == tonic]
    vamp = f"{tonic}{rng.choice(['', '', '7', '9'])}" if style.extensions >= 0.4 else tonic
    if rng.random() < _VAMPS.get(style.name, 0.03):
        main = vamp
    else:
        near = kept(_RELATIVES[mode]) if rng.random() < _AMBIGUOUS_SHARE else home
        main = draw(near) if rng.random() < _ANCHORED_SHARE else draw(away)
    anchored = main.split()[0].rstrip("maj79") == tonic
    chorus = main if rng.random() < 0.45 else draw(home) if not anchored or rng.random() < 0.5 else draw(away)
    bridge = draw(away) if rng.random() < 0.7 else draw(home)
    intro = main if rng.random() < 0.7 else chorus
    pause = main if rng.random() < 0.5 else chorus
    return {"verse": main, "chorus": chorus, "bridge": bridge, "intro": intro, "break": pause}


def _section_chords(loop: str, key: Key, start: float, end: float, step: float, thirdless: bool) -> list[Chord]:
    """The loop repeated from its first chord, truncated at the end of the section."""
    names = [parse_roman(numeral, key.tonic, key.mode) for numeral in loop.split()]
    chords: list[Chord] = []
    now, index = start, 0
    while now < end - 1e-6:
        chord = names[index % len(names)].at(now, min(step, end - now))
        chords.append(replace(chord, intervals=(0, 7, 10) if 10 in chord.intervals else (0, 7)) if thirdless else chord)
        now, index = now + step, index + 1
    return chords


def _draw_tune(
    rng: np.random.Generator, style: Style, key: Key, chords: tuple[Chord, ...], sections: list[Section]
) -> list[Note]:
    """The melody of the song: one per kind of section, repeated with the section, biased towards the tonic triad."""
    pull = rng.uniform(0.0, 0.35)
    drawn: dict[str, list[Note]] = {}
    tune: list[Note] = []
    for section in sections:
        kind = "verse" if section.kind in ("intro", "break") else section.kind
        length = section.end - section.start
        inside = tuple(
            replace(chord, start=chord.start - section.start)
            for chord in chords
            if section.start <= chord.start < section.end
        )
        if kind not in drawn or max((note.end for note in drawn[kind]), default=0.0) > length + 8.0:
            notes = draw_melody(rng, key, ChordLookup(inside), length, style.loops)
            drawn[kind] = _pulled(rng, notes, key, ChordLookup(inside), pull)
        tune += [replace(note, start=note.start + section.start) for note in drawn[kind] if note.start < length]
    return tune


def _pulled(rng: np.random.Generator, notes: list[Note], key: Key, chords: ChordLookup, share: float) -> list[Note]:
    """The notes, a ``share`` of them moved to the nearest tone of the tonic triad that fits the chord."""
    home = {key.tonic, (key.tonic + (3 if key.mode == "minor" else 4)) % 12, (key.tonic + 7) % 12}
    out = []
    for number, note in enumerate(notes):
        closes = number + 1 == len(notes) or notes[number + 1].start - note.end >= 0.99
        if rng.random() < share + 0.25 * closes:
            chord = chords.at(note.start)
            clashes = {(tone + 1) % 12 for tone in chord.pitch_classes} if chord else set()
            allowed = {key.tonic} if closes and key.tonic not in clashes and rng.random() < 0.6 else home - clashes
            near = [pitch for pitch in range(note.pitch - 4, note.pitch + 5) if pitch % 12 in allowed]
            if near:
                note = replace(note, pitch=min(near, key=lambda pitch: abs(pitch - note.pitch)))
        out.append(note)
    return out
