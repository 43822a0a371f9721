"""Bach's four-part chorales in Humdrum, edited by Craig Sapp: https://github.com/craigsapp/bach-370-chorales
(CC BY-NC-SA 4.0: not for commercial use). The key is the editor's ``*G:`` interpretation, checked against the notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from stonecli.key import Key
from stonecli_train.corpus import humdrum
from stonecli_train.corpus.harmony import pitch_class
from stonecli_train.corpus.score import CorpusFiles, Note, Passage, Skipped, agrees_with_notes

SOURCE = "bach_chorales"


def read(root: Path, skipped: Skipped) -> Iterator[Passage]:
    """The chorales in ``root``, a folder or zip with ``*.krn``; files that are skipped are counted in ``skipped``."""
    for name, content in CorpusFiles(root, lambda name: name.endswith(".krn")):
        try:
            yield read_chorale(content.decode("utf-8", "replace"), Path(name).name)
        except ValueError as error:
            skipped[f"{SOURCE}: {str(error).split(':')[0]}"] += 1


def read_chorale(text: str, origin: str) -> Passage:
    """The passage of one file; voice 0 is the highest.

    Raises:
        ValueError: the file cannot be read, or its key is missing or does not fit the notes.
    """
    kinds, records = humdrum.parse_humdrum(text)
    spines = [index for index, kind in enumerate(kinds) if kind == "**kern"]
    timed = list(humdrum.times(records, spines))
    key: Key | None = None
    bar = 4.0
    for _, record in timed:
        if record.is_interpretation or record.is_bar:
            for spine in spines:
                found = humdrum.key_of(record.spines[spine][0])
                if found and key is None:
                    key = Key(pitch_class(found), "minor" if found[0].islower() else "major")
                bar = humdrum.meter_of(record.spines[spine][0]) or bar
    notes, end = _notes_of(timed, spines)
    if key is None:
        raise ValueError("no key")
    if len(notes) < 60:
        raise ValueError("too short")
    passage = Passage(
        keys=((0.0, key),),
        length=end,
        source=SOURCE,
        origin=origin,
        notes=tuple(notes),
        beats_per_bar=3 if bar == 3 else 4,
        bar_start=next((now for now, record in timed if record.is_bar), 0.0),
    )
    if not agrees_with_notes(passage.histogram(), key):
        raise ValueError("the key does not fit the notes")
    return passage


def _notes_of(timed: Sequence[tuple[float, humdrum.Record]], spines: Sequence[int]) -> tuple[list[Note], float]:
    """The notes, tied ones joined, and the end of the last note or rest in quarter notes."""
    notes: list[Note] = []
    end = 0.0
    open_ties: dict[tuple[int, int], int] = {}  # (voice, pitch) -> index in notes
    for now, record in timed:
        if record.is_interpretation or record.is_bar:
            continue
        for voice, spine in enumerate(reversed(spines)):
            for token in record.spines[spine]:
                length = humdrum.duration(token)
                if length is None:
                    continue
                end = max(end, now + length)
                for pitch in humdrum.pitches(token):
                    tied = open_ties.pop((voice, pitch), None) if "]" in token or "_" in token else None
                    if tied is not None:
                        before = notes[tied]
                        notes[tied] = Note(before.start, now + length - before.start, pitch, voice)
                    else:
                        tied = len(notes)
                        notes.append(Note(now, length, pitch, voice))
                    if "[" in token or "_" in token:
                        open_ties[voice, pitch] = tied
    return notes, end
