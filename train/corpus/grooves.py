"""Reads the Groove MIDI Dataset: drummers playing to a metronome on an electronic kit (CC BY 4.0).

Gillick et al., *Learning to Groove with Inverse Sequence Transformations*, ICML 2019;
https://magenta.tensorflow.org/datasets/groove. The tempo is that of the metronome, which the file names contain:
``1_funk_80_beat_4-4.mid``. Fills (``_fill_``) are too short to have a tempo and are skipped.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stonecli.errors import StoneError
from stonecli_train.corpus.arrange import Tone
from stonecli_train.corpus.score import CorpusFiles

FOLDER = "groove"  # name of the folder or zip among the corpora
MIN_BEATS = 16.0  # minimum length of a performance
_NAME = re.compile(r"_(?P<bpm>\d+)_beat_(?P<beats>\d+)-4\.mid$")
_GENERAL_MIDI = {22: 42, 26: 46}  # strokes on the edge of the hi-hat, which General MIDI does not have


@dataclass(frozen=True)
class Groove:
    """A performance.

    Attributes:
        name: name of the file.
        bpm: tempo of the metronome, in beats per minute.
        beats_per_bar: number of beats per bar.
        beats: length in beats, a multiple of ``beats_per_bar``.
        tones: drum hits, ascending in time; start and duration in beats.
    """

    name: str
    bpm: float
    beats_per_bar: int
    beats: float
    tones: tuple[Tone, ...]

    def played(self, bpm: float, seconds: float, first_bar: int = 0) -> tuple[Tone, ...]:
        """The hits at the tempo ``bpm``, repeated to fill ``seconds``; start and duration in seconds.

        Args:
            bpm: tempo in beats per minute.
            seconds: length of the result.
            first_bar: number of the bar at which it starts.
        """
        beat = 60.0 / bpm
        offset = first_bar * self.beats_per_bar % self.beats
        out = []
        start = -offset
        while start * beat < seconds:
            out += [
                Tone((start + tone.start) * beat, tone.duration * beat, tone.pitch, tone.velocity)
                for tone in self.tones
                if 0.0 <= (start + tone.start) * beat < seconds
            ]
            start += self.beats
        return tuple(out)


def read_grooves(root: Path) -> list[Groove]:
    """The performances in ``root``, a folder or zip of the dataset, sorted by name.

    Raises:
        StoneError: the folder has no performances.
        OSError: the folder or zip cannot be read.
    """
    found = []
    for name, content in CorpusFiles(root, lambda name: _NAME.search(name) is not None):
        groove = read_groove(PurePosixPath(name).name, content)
        if groove is not None:
            found.append(groove)
    if not found:
        raise StoneError(f"{root}: no performances found; it must contain the MIDI files of the Groove MIDI Dataset")
    return sorted(found, key=lambda groove: groove.name)


def read_groove(name: str, content: bytes) -> Groove | None:
    """The performance in a MIDI file; None if it is too short.

    Raises:
        ValueError, EOFError, OSError: the file cannot be read.
    """
    import mido

    match = _NAME.search(name)
    if match is None:
        raise ValueError(f"{name}: the file name has no tempo")
    file = mido.MidiFile(file=io.BytesIO(content), clip=True)
    tones = []
    for track in file.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                pitch = _GENERAL_MIDI.get(message.note, message.note)
                tones.append(Tone(now / file.ticks_per_beat, 0.2, pitch, message.velocity))
    tones.sort(key=lambda tone: (tone.start, tone.pitch))
    meter = int(match["beats"])
    beats = meter * round(tones[-1].start / meter) if tones else 0
    if beats < MIN_BEATS:
        return None
    kept = tuple(tone for tone in tones if tone.start < beats)
    return Groove(name, float(match["bpm"]), meter, float(beats), kept)
