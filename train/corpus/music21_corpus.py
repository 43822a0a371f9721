"""Reads music with an unambiguous key from the corpus of the PyPI package music21, without importing it.

The code of music21 has the BSD license; each encoding has its own terms, some not for commercial use
(``music21/corpus/license.txt``). Used are the fiddle tunes of *Ryan's Mammoth Collection* and *Aird's Airs* and the
tunes of *O'Neill's* (ABC; modal keys by tonic and third), and the analyses of Bach's chorales in RomanText, which give
the local keys. The analyses of Monteverdi's madrigals are not used, because the madrigals predate major and minor keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli_train.corpus.abc_notation import read_tunes
from stonecli_train.corpus.harmony import ChordName, parse_roman, pitch_class
from stonecli_train.corpus.score import CorpusFiles, Passage, Skipped, agrees_with_notes

SOURCE = "music21"
_FOLDERS = ("ryansMammoth/", "airdsAirs/", "oneills1850/", "bach/choraleAnalyses/")
_MEASURE = re.compile(r"m(\d+)\s+(.*)")
_KEY = re.compile(r"([A-Ga-g])([#b]*):")


def installed_corpus() -> Path:
    """The folder of the corpus in the installed music21.

    Raises:
        StoneError: music21 is not installed.
    """
    spec = find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise StoneError("music21 is not installed: pip install music21")
    return Path(spec.submodule_search_locations[0]) / "corpus"


def read(root: Path, skipped: Skipped) -> Iterator[Passage]:
    """The passages in ``root``, a music21 corpus folder or a zip of one; others are counted in ``skipped``."""
    wanted = CorpusFiles(root, lambda name: name.startswith(_FOLDERS) and name.endswith((".abc", ".rntxt")))
    for name, content in wanted:
        text = content.decode("utf-8", "replace")
        if name.endswith(".rntxt"):
            try:
                yield read_romantext(text, Path(name).name)
            except ValueError as error:
                skipped[f"{SOURCE}: {str(error).split(':')[0]}"] += 1
            continue
        for tune in read_tunes(text, SOURCE, Path(name).name, skipped):
            ends_on = tune.melody[-1].pitch % 12 == tune.key.tonic
            if agrees_with_notes(tune.histogram(), tune.key) and (ends_on or len(tune.melody) > 200):
                yield tune
            else:
                skipped[f"{SOURCE}: the key is not certain"] += 1


def read_romantext(text: str, origin: str) -> Passage:
    """The passage of a RomanText analysis (Tymoczko et al., ISMIR 2019).

    Raises:
        ValueError: the text cannot be read, or has no key or no chords.
    """
    meter = re.search(r"(?m)^Time Signature:\s*(\d+)/(\d+)", text)
    if not meter or len(re.findall(r"(?m)^Time Signature:", text)) > 1:
        raise ValueError("no meter, or more than one")
    bar = int(meter[1]) * 4 / int(meter[2])
    beat = 4 / int(meter[2])
    key: Key | None = None
    keys: list[tuple[float, Key]] = []
    names: list[tuple[float, ChordName]] = []
    last = 0.0
    for line in text.splitlines():
        match = _MEASURE.fullmatch(line.strip())
        if not match:  # variants (m11var1) and comments are ignored
            continue
        now = int(match[1]) * bar
        last = now + bar
        index = now
        for word in match[2].split():
            if word.startswith("b") and re.fullmatch(r"b\d+(\.\d+)?", word):
                index = now + (float(word[1:]) - 1) * beat
            elif found := _KEY.fullmatch(word):
                key = Key(pitch_class(found[1] + found[2]), "minor" if found[1].islower() else "major")
                keys.append((index, key))
            elif key is not None and word[0] in "IViv#b":
                numeral = re.sub(r"\[.*?\]", "", word).replace("6/5", "65").replace("4/3", "43").replace("6/4", "64")
                names.append((index, parse_roman(numeral.replace("4/2", "42"), key.tonic, key.mode)))
    if not names or not keys:
        raise ValueError("no chords")
    first = names[0][0]
    ends = [start for start, _ in names[1:]] + [last]
    return Passage(
        keys=((0.0, keys[0][1]), *((start - first, key) for start, key in keys[1:] if start > first)),
        length=last - first,
        source=SOURCE,
        origin=origin,
        chords=tuple(
            name.at(start - first, end - start) for (start, name), end in zip(names, ends, strict=True) if end > start
        ),
        beats_per_bar=3 if bar == 3 else 4,
        bar_start=-first % bar,
    )
