"""The Nottingham Music Database: folk tunes with chords in ABC, from https://github.com/jukedeck/nottingham-dataset
(cleaned from James Allwright's collection; GPL-3). Tunes whose chords neither begin nor end on the tonic of the ``K:``
field are modal with a borrowed signature, and skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stonecli_train.corpus.abc_notation import begins_or_ends_on_tonic, read_tunes, with_chords
from stonecli_train.corpus.score import CorpusFiles, Passage, Skipped, agrees_with_notes

SOURCE = "nottingham"


def read(root: Path, skipped: Skipped) -> Iterator[Passage]:
    """The tunes in ``root``, a folder or zip with ``*.abc``; skipped tunes are counted in ``skipped``."""
    for name, content in CorpusFiles(root, lambda name: name.endswith(".abc")):
        for tune in read_tunes(content.decode("utf-8", "replace"), SOURCE, Path(name).name, skipped):
            if not with_chords(tune):
                skipped[f"{SOURCE}: without chords"] += 1
            elif not begins_or_ends_on_tonic(tune.chords, tune.key) or not agrees_with_notes(
                tune.histogram(), tune.key
            ):
                skipped[f"{SOURCE}: the key is not certain"] += 1
            else:
                yield tune
