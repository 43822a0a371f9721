"""Reads POP909: piano arrangements of 909 Chinese pop songs in MIDI, with keys and chords estimated by software.

https://github.com/music-x-lab/POP909-Dataset (MIT). Passages whose key does not fit the notes are skipped.
``key_audio.txt`` has lines of start, end (seconds) and key; ``chord_midi.txt`` has lines of start, end and chord in
Harte's syntax. Beats are those of the MIDI file.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from stonecli.key import Key
from stonecli_train.corpus.harmony import parse_harte
from stonecli_train.corpus.score import Chord, CorpusFiles, Note, Passage, Skipped, agrees_with_notes

SOURCE = "pop909"
MIN_BEATS = 32.0  # minimum length of a passage
VOICES = {"MELODY": 0, "BRIDGE": 1, "PIANO": 2}


def read(root: Path, skipped: Skipped) -> Iterator[Passage]:
    """The songs in ``root``, a folder or zip of POP909; skipped passages are counted in ``skipped``."""
    songs: dict[str, dict[str, bytes]] = {}
    wanted = ("key_audio.txt", "chord_midi.txt", ".mid")
    for name, content in CorpusFiles(root, lambda name: name.endswith(wanted) and "versions" not in name):
        path = PurePosixPath(name)
        kind = "score" if path.suffix == ".mid" else path.stem
        songs.setdefault(str(path.parent), {}).setdefault(kind, content)
    for name, files in sorted(songs.items()):
        if not {"key_audio", "score"} <= set(files):
            skipped[f"{SOURCE}: no key or no score"] += 1
            continue
        try:
            yield from read_song(
                files["score"], files["key_audio"].decode(), files.get("chord_midi", b"").decode(), name, skipped
            )
        except (ValueError, EOFError, OSError, IndexError) as error:
            skipped[f"{SOURCE}: {str(error).split(':')[0]}"] += 1


def read_song(score: bytes, keys: str, chords: str, origin: str, skipped: Skipped) -> Iterator[Passage]:
    """One passage for each single-key section of the song.

    Raises:
        ValueError, EOFError, OSError: a file cannot be read.
    """
    song, clock = _read_midi(score, origin)
    named = tuple(_read_chords(chords, clock))
    for line in keys.splitlines():
        if not line.strip():
            continue
        start, end, name = line.split()
        key = Key.parse(name)
        first, last = max(0.0, clock.beat(float(start))), min(song.length, clock.beat(float(end)))
        section = replace(song, keys=((0.0, key),), chords=named, bar_start=_bar_start(named))
        if last - first < MIN_BEATS:
            skipped[f"{SOURCE}: section too short"] += 1
            continue
        section = section.excerpt(first, last - first)
        if agrees_with_notes(section.histogram(), key):
            yield replace(section, melody=tuple(note for note in section.notes if note.voice == 0))
        else:
            skipped[f"{SOURCE}: the key does not fit the notes"] += 1


class _Clock:
    """Converts seconds to beats by the tempo changes of a MIDI file."""

    def __init__(self, changes: list[tuple[float, float]]) -> None:
        self._beats, self._seconds, self._rates = [0.0], [0.0], [2.0]  # beats per second
        for beat, rate in changes:
            self._seconds.append(self._seconds[-1] + (beat - self._beats[-1]) / self._rates[-1])
            self._beats.append(beat)
            self._rates.append(rate)

    def beat(self, seconds: float) -> float:
        """The beat at a time in seconds."""
        index = max(0, bisect_right(self._seconds, seconds) - 1)
        return self._beats[index] + (seconds - self._seconds[index]) * self._rates[index]


def _read_midi(content: bytes, origin: str) -> tuple[Passage, _Clock]:
    import mido

    file = mido.MidiFile(file=io.BytesIO(content), clip=True)
    changes: list[tuple[float, float]] = []
    notes: list[Note] = []
    for track in file.tracks:
        voice = VOICES.get(track.name.strip().upper(), 2)
        now = 0
        sounding: dict[int, tuple[int, int]] = {}
        for message in track:
            now += message.time
            if message.type == "set_tempo":
                changes.append((now / file.ticks_per_beat, 1e6 / message.tempo))
            elif message.type in ("note_on", "note_off"):
                if message.note in sounding:
                    start, velocity = sounding.pop(message.note)
                    beats = (now - start) / file.ticks_per_beat
                    if beats > 0:
                        notes.append(Note(start / file.ticks_per_beat, beats, message.note, voice, velocity))
                if message.type == "note_on" and message.velocity:
                    sounding[message.note] = (now, message.velocity)
    if not notes:
        raise ValueError("no notes")
    notes.sort(key=lambda note: (note.start, note.pitch))
    length = max(note.end for note in notes)
    return (
        Passage(((0.0, Key(0, "major")),), length, SOURCE, origin, notes=tuple(notes)),
        _Clock(sorted(changes)),
    )


def _read_chords(text: str, clock: _Clock) -> Iterator[Chord]:
    for line in text.splitlines():
        if line.strip():
            start, end, name = line.split()
            chord = parse_harte(name)
            first, last = max(0.0, clock.beat(float(start))), clock.beat(float(end))
            if chord is not None and last > first:
                yield chord.at(first, last - first)


def _bar_start(chords: tuple[Chord, ...]) -> float:
    """Beat within a 4/4 bar (0 to 3.75) at which most chords start."""
    beats = Counter(round(chord.start * 4) % 16 / 4 for chord in chords)
    return max(beats, key=lambda beat: beats[beat]) if beats else 0.0
