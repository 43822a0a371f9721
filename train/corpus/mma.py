"""Accompaniment by MMA (Musical MIDI Accompaniment): bass, chord and drum patterns written by musicians.

MMA is a separate program (GPL, Debian package ``mma``). Its library has several hundred grooves, each for a band with
its instruments. The songs, their melodies and their singers come from ``stonecli_train.corpus.songs`` and
``stonecli_train.corpus.arrange``; MMA can also accompany the charts of a corpus.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stonecli.errors import StoneError
from stonecli_train.corpus.arrange import HIGHEST, LOWEST, Part, Role, Tone
from stonecli_train.corpus.score import Chord

SOURCE = "mma"
LIBRARY = Path("/usr/share/mma/lib")
BEATS_PER_BAR = 4
TIMEOUT_SECONDS = 30.0  # of one run
_HELD_OUT_EVERY = 5  # one file of the library out of this number is held out
_NOT_SONGS = ("intro", "end", "fill")  # words in the names of grooves for a few bars only
_FIRST_EFFECT = 112  # General MIDI programs from here on are percussion and noises without a definite pitch
_OWN_PROGRAM_SHARE = 0.7  # share of chord parts that keep the groove's instrument; the others get one of the style

GROOVES: dict[str, tuple[str, ...]] = {
    "house": ("casio/house", "casio/latinhouse", "casio/dance1", "casio/dance2", "casio/dancepop3"),
    "techno": ("casio/techno", "casio/rave", "alexis/teamtechno"),
    "trance": ("casio/trance1", "casio/trance2", "stdlib/trance", "casio/rave"),
    "electro": ("casio/electricpop", "casio/triphop", "casio/ambient1", "casio/ambient2", "casio/ambient3"),
    "hiphop": ("alexis/hiphop", "casio/hip-hop", "casio/triphop", "casio/mellowrb"),
    "trap": ("alexis/hiphop", "casio/hip-hop", "casio/triphop"),
    "rap_bed": ("alexis/hiphop", "casio/hip-hop", "casio/triphop", "casio/modernrb"),
    "rnb": ("casio/r+b", "casio/mellowrb", "casio/modernrb", "stdlib/rb", "stdlib/rb-ballad", "casio/slow16beat"),
    "dance_pop": ("casio/dancepop1", "casio/dancepop2", "casio/dancepop3", "casio/8beatdance", "casio/electricpop",
                  "casio/80spop", "casio/dance1", "casio/dance2"),
    "disco": ("casio/discosoul", "stdlib/boneym", "casio/8beatdance", "casio/dancepop2", "kara/2beatp"),
    "funk": ("casio/funk1", "casio/funk2", "kara/Kfunk1", "stdlib/bvfunk", "stdlib/strut", "casio/fusion"),
    "soul": ("casio/soul", "casio/soulpop", "casio/60ssoul", "stdlib/dsoul", "kara/8beatmotown"),
    "pop": ("casio/pop", "casio/8beatpop1", "casio/8beatpop2", "casio/8beatpop3", "casio/worldpop", "casio/16beat1",
            "casio/16beat2", "casio/16beat3", "casio/8beat1", "casio/8beat2", "casio/8beat3", "stdlib/8beat",
            "casio/60spop", "casio/poprock1", "stdlib/bubblerock"),
    "ballad": ("casio/8beatballad1", "casio/8beatballad2", "casio/8beatballad3", "casio/16beatballad1",
               "casio/16beatballad2", "casio/popballad", "stdlib/rockballad", "stdlib/popballad", "stdlib/ballad",
               "stdlib/pianoballad", "stdlib/stringballad"),
    "rock": ("casio/rock1", "casio/rock2", "casio/poprock1", "casio/poprock2", "casio/digitalrock", "casio/60srock",
             "stdlib/basicrock", "stdlib/softrock", "stdlib/60srock", "stdlib/folkrock", "yamaha/w-rock",
             "casio/shufflerock"),
    "rock_riff": ("casio/heavymetal", "casio/digitalrock", "casio/rock2", "stdlib/jazzrock"),
    "metal": ("casio/heavymetal", "casio/digitalrock", "casio/rock1"),
    "punk": ("casio/rock2", "stdlib/50srock", "casio/twist", "kara/fasttwist"),
    "reggae": ("stdlib/ska", "stdlib/calypso", "casio/worldpop"),
    "latin": ("stdlib/salsa", "stdlib/son", "stdlib/merengue", "stdlib/chacha", "stdlib/mambo", "casio/latinfusion",
              "yamaha/salsa1", "yamaha/salsa2", "stdlib/bossanova"),
    "country": ("stdlib/slowcountry", "yamaha/western", "yamaha/jazzcountry", "stdlib/countryblues"),
    "folk": ("stdlib/folkrock", "stdlib/folk", "stdlib/bluefolk", "stdlib/folkballad", "stdlib/guitarballad"),
    "blues": ("stdlib/blues", "stdlib/slowblues", "stdlib/fastblues", "casio/blues", "stdlib/shuffleboggie",
              "casio/shuffleboogie"),
}  # fmt: skip
"""Files of MMA's library by style."""

_SUFFIXES: dict[tuple[int, ...], str] = {
    (0, 4, 7): "", (0, 3, 7): "m", (0, 7): "5", (0, 5, 7): "sus4", (0, 2, 7): "sus2", (0, 3, 6): "dim3",
    (0, 4, 8): "aug", (0, 4, 7, 10): "7", (0, 4, 7, 11): "M7", (0, 3, 7, 10): "m7", (0, 3, 6, 9): "dim7",
    (0, 3, 6, 10): "m7b5", (0, 4, 7, 9): "6", (0, 3, 7, 9): "m6", (0, 5, 7, 10): "7sus4", (0, 3, 7, 11): "mM7",
    (0, 4, 7, 10, 14): "9", (0, 4, 7, 11, 14): "M9", (0, 3, 7, 10, 14): "m9",
}  # fmt: skip
_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


class MMAError(StoneError):
    """MMA is not installed, or fails."""


def check_installed() -> None:
    """Check that MMA and its library are installed.

    Raises:
        MMAError: they are not; the message names the package.
    """
    if shutil.which("mma") is None or not LIBRARY.is_dir():
        raise MMAError("MMA or its library is missing: apt-get install mma")


def styles_with_grooves(names: Sequence[str], held_out: bool) -> tuple[str, ...]:
    """The styles among ``names`` that have a groove for training, or a held-out one."""
    return tuple(name for name in names if any(_is_held_out(file) == held_out for file in GROOVES.get(name, ())))


def draw_grooves(rng: np.random.Generator, style: str, held_out: bool) -> tuple[str, ...]:
    """Names of one or two random grooves of a library file that suits ``style``.

    Raises:
        MMAError: MMA's library does not have the file, or the file has no grooves.
        ValueError: the style has no grooves (``styles_with_grooves``).
    """
    files = [file for file in GROOVES.get(style, ()) if _is_held_out(file) == held_out]
    if not files:
        raise ValueError(f"no grooves for {style}")
    file = files[int(rng.integers(len(files)))]
    try:
        text = (LIBRARY / f"{file}.mma").read_text("utf-8", errors="replace")
    except OSError as error:
        raise MMAError(f"MMA's library has no {file}: {error}") from error
    found = [line.split()[1] for line in text.splitlines() if line.strip().lower().startswith("defgroove ")]
    names = [name for name in dict.fromkeys(found) if not any(word in name.lower() for word in _NOT_SONGS)]
    if not names:
        raise MMAError(f"{file}: no grooves")
    return tuple(f"{file}:{name}" for name in rng.permutation(names)[:2])


def accompany(
    rng: np.random.Generator,
    chords: Sequence[Chord],
    beats: float,
    changes: Sequence[tuple[float, str]],
    bpm: float,
    programs: Sequence[int],
) -> tuple[Part, ...]:
    """The accompaniment of ``chords`` by the grooves: bass, chords and drums.

    Args:
        rng: random generator of the excerpt.
        chords: chords in beats from 0; their onsets are rounded to the nearest beat.
        beats: length in beats.
        changes: (first beat, groove), ascending, the first at 0; a groove starts at the next bar line.
        bpm: tempo in quarter notes per minute.
        programs: General MIDI programs that replace the groove's in some chord parts.

    Raises:
        MMAError: MMA is not installed, fails, or plays no pitched part.
    """
    text = chart(chords, beats, changes, bpm, int(rng.integers(1 << 20)))
    with tempfile.TemporaryDirectory(prefix="stone-") as name:
        source, score = Path(name) / "song.mma", Path(name) / "song.mid"
        source.write_text(text, "utf-8")
        try:
            done = subprocess.run(  # noqa: S603
                ["mma", "-w", "-m", "2000", str(source), "-f", str(score)],  # noqa: S607
                capture_output=True, timeout=TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MMAError(f"MMA failed: {error}") from error
        if done.returncode or not score.exists():
            raise MMAError(f"MMA failed: {(done.stdout + done.stderr).decode(errors='replace')[-300:].strip()}")
        parts = _read_parts(score, 60.0 / bpm)
    if not any(part.role != "drums" for part in parts):
        raise MMAError("MMA played no pitched part")
    return tuple(_with_program(rng, part, programs) for part in parts)


def chart(chords: Sequence[Chord], beats: float, changes: Sequence[tuple[float, str]], bpm: float, seed: int) -> str:
    """The chart in MMA's syntax: per beat of each bar a chord, ``/`` for the previous chord, or ``z`` for none."""
    starts: dict[int, str] = {}
    for chord in chords:
        starts[round(chord.start)] = chord_name(chord)
        starts.setdefault(round(chord.end), "z")  # overwritten by the next chord if it follows without a gap
    bars = int(np.ceil(beats / BEATS_PER_BAR))
    grooves = {int(np.ceil(beat / BEATS_PER_BAR)): groove for beat, groove in changes}
    lines = [f"RndSeed {seed}", f"Tempo {bpm:.3f}"]
    now = "z"
    for bar in range(bars):
        if bar in grooves:
            lines.append(f"Groove {grooves[bar]}")
        cells: list[str] = []
        for beat in range(BEATS_PER_BAR * bar, BEATS_PER_BAR * (bar + 1)):
            changed = starts.get(beat, now)
            cells.append(changed if changed != now or not cells else "/")
            now = changed
        lines.append(f"{bar + 1} {' '.join(cells)}")
    return "\n".join(lines) + "\n"


def chord_name(chord: Chord) -> str:
    """The chord in MMA's spelling, with its bass if that is not the root."""
    intervals = tuple(sorted(set(chord.intervals)))
    suffix = _SUFFIXES.get(intervals)
    if suffix is None:
        within = {interval % 12 for interval in intervals}
        third = "m" if 3 in within and 4 not in within else "" if 4 in within else "5"
        suffix = third + ("7" if 10 in within and third != "5" else "")
    bass = f"/{_NAMES[chord.bass]}" if chord.bass != chord.root else ""
    return f"{_NAMES[chord.root]}{suffix}{bass}"


def _read_parts(score: Path, seconds_per_beat: float) -> list[Part]:
    """One part per track of MMA's file that has notes."""
    import mido

    file = mido.MidiFile(score, clip=True)
    parts = []
    for track in file.tracks:
        role = _role(track.name)
        program, now = 0, 0
        sounding: dict[int, tuple[int, int]] = {}
        tones = []
        for message in track:
            now += message.time
            if message.type == "program_change":
                program = message.program
            elif message.type in ("note_on", "note_off"):
                if message.note in sounding:
                    start, velocity = sounding.pop(message.note)
                    seconds = (now - start) / file.ticks_per_beat * seconds_per_beat
                    if LOWEST <= message.note <= HIGHEST:
                        start_seconds = start / file.ticks_per_beat * seconds_per_beat
                        tones.append(Tone(start_seconds, max(0.04, seconds), message.note, velocity))
                if message.type == "note_on" and message.velocity:
                    sounding[message.note] = (now, message.velocity)
        if tones and (role == "drums" or program < _FIRST_EFFECT):
            tones.sort(key=lambda tone: (tone.start, tone.pitch))
            parts.append(Part(role, tuple(tones), 0 if role == "drums" else program))
    return parts


def _role(track: str) -> Role:
    """Role of an MMA track, from its name, which starts with the kind of pattern."""
    kind = track.split("-")[0].lower()
    if kind.startswith("drum"):
        return "drums"
    return "bass" if kind.startswith(("bass", "walk")) else "chords"


def _with_program(rng: np.random.Generator, part: Part, programs: Sequence[int]) -> Part:
    """The part at a random gain, sometimes on another instrument or on a synthesizer."""
    loud = 10.0 ** (rng.uniform(-8, 6) / 20.0) if part.role == "drums" else rng.uniform(0.45, 1.1)
    keeps_program = part.role != "chords" or rng.random() < _OWN_PROGRAM_SHARE
    program = part.program if keeps_program else int(programs[int(rng.integers(len(programs)))])
    return Part(part.role, part.tones, program, 0.8 * loud if part.role == "drums" else loud, rng.random() < 0.15)


def _is_held_out(file: str) -> bool:
    return zlib.crc32(file.encode()) % _HELD_OUT_EVERY == 0
