"""Reads the Nottingham Music Database: folk tunes with chords in ABC notation.

https://github.com/jukedeck/nottingham-dataset (cleaned from James Allwright's collection; GPL-3). Tunes whose chords
neither start nor end on the tonic of the ``K:`` field are skipped: they are modal, with the signature of another key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stonecli_train.corpus.abc_notation import has_chords, read_tunes, starts_or_ends_on_tonic
from stonecli_train.corpus.score import CorpusFiles, Passage, Skipped, agrees_with_notes

SOURCE = "nottingham"


def read(root: Path, skipped: Skipped) -> Iterator[Passage]:
    """The tunes in ``root``, a folder or zip with ``*.abc``; skipped tunes are counted in ``skipped``."""
    for name, content in CorpusFiles(root, lambda name: name.endswith(".abc")):
        for tune in read_tunes(content.decode("utf-8", "replace"), SOURCE, Path(name).name, skipped):
            if not has_chords(tune):
                skipped[f"{SOURCE}: without chords"] += 1
            elif not starts_or_ends_on_tonic(tune.chords, tune.key) or not agrees_with_notes(
                tune.histogram(), tune.key
            ):
                skipped[f"{SOURCE}: the key is not certain"] += 1
            else:
                yield tune
