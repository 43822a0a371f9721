"""Chord charts of 1382 jazz standards: https://github.com/mikeoliphant/JazzStandards (no license stated; chord
progressions only). The key is the chart's; charts without a tonic chord are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stonecli.key import Key
from stonecli_train.corpus.harmony import parse_symbol
from stonecli_train.corpus.score import Chord, CorpusFiles, Passage, Skipped, diatonic_share

SOURCE = "jazz_standards"


def read(root: Path, skipped: Skipped) -> Iterator[Passage]:
    """The charts in ``root``, a folder or zip with ``*.json``; skipped charts are counted in ``skipped``."""
    for name, content in CorpusFiles(root, lambda name: name.endswith(".json")):
        for song in json.loads(content):
            try:
                yield read_chart(song, Path(name).name)
            except (ValueError, KeyError, TypeError) as error:
                skipped[f"{SOURCE}: {str(error).split(':')[0]}"] += 1


def read_chart(song: dict[str, Any], origin: str) -> Passage:
    """The passage of one chart.

    Raises:
        ValueError: the chart has no key, no tonic chord or an unusual meter, a chord cannot be read, or the key does
            not fit the chords.
        KeyError, TypeError: ``song`` is not a chart.
    """
    if not song.get("Key"):
        raise ValueError("no key")
    key = Key.parse(song["Key"])
    beats = {"4/4": 4, "3/4": 3, "2/4": 2, "6/4": 6}.get(song.get("TimeSignature") or "4/4")
    if beats is None:
        raise ValueError("unusual meter")
    chords, length = _chords_of(song["Sections"], beats)
    if len(chords) < 4:
        raise ValueError("too short")
    third = 4 if key.mode == "major" else 3
    passage = Passage(
        keys=((0.0, key),),
        length=length,
        source=SOURCE,
        origin=f"{origin}: {song.get('Title', '')[:60]}",
        chords=tuple(chords),
        beats_per_bar=3 if beats == 3 else 4,
    )
    if not any(chord.root == key.tonic and third in chord.intervals for chord in chords):
        raise ValueError("no tonic chord")
    if diatonic_share(passage.histogram(), key) < 0.75:
        raise ValueError("the key does not fit the chords")
    return passage


def _chords_of(sections: Sequence[dict[str, Any]], beats: int) -> tuple[list[Chord], float]:
    """The chords of all sections, each with its first ending, and their total length in beats; repeats are joined."""
    chords: list[Chord] = []
    now = 0.0
    for section in sections:
        texts = [section["MainSegment"]["Chords"], *(ending["Chords"] for ending in section.get("Endings", [])[:1])]
        for bar in "|".join(texts).split("|"):
            names = [name.strip() for name in bar.split(",") if name.strip()] or ["%"]
            length = beats / len(names)
            for name in names:
                repeats = name[0] in "%(x-/" or not name[0].isalpha()
                chord = None if repeats else parse_symbol(name)
                if chord is not None:
                    chords.append(chord.at(now, length))
                elif chords:
                    last = chords[-1]
                    chords[-1] = Chord(last.start, now + length - last.start, last.root, last.intervals, last.bass)
                now += length
    return chords, now
