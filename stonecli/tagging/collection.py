"""The key and the tempo of a file from a rekordbox collection: they count where the file has none in its tags."""

from __future__ import annotations

from dataclasses import replace

from stonecli.key import parse_or_none
from stonecli.library.collection_tags import CollectionTexts
from stonecli.spelling import says_no_key
from stonecli.tagging.results import TagResult
from stonecli.tags import KeyTags
from stonecli.tags.tempo_text import parse_bpm, says_no_tempo


def completed(old: KeyTags, given: CollectionTexts) -> KeyTags:
    """The tags of a file, with the key text of a collection if the file has none.

    A text of the file that stone cannot read may name any key, so it is kept.
    """
    if old.key is not None or old.is_unreadable or says_no_key(given.key):
        return old
    return replace(old, text=given.key, key=parse_or_none(given.key), other_key=given.other_key)


def completed_result(result: TagResult, own: KeyTags, given: CollectionTexts) -> TagResult:
    """The result for a file with the tags ``own``, with the old key and the tempo of a collection if it has none."""
    new = completed(own, given)
    bpm = parse_bpm(given.bpm) if says_no_tempo(own.bpm_text) else None
    differs = own.key is not None and parse_or_none(given.key) not in (own.key, None)
    result = replace(result, bpm=bpm or result.bpm, old_bpm_text=own.bpm_text, differs_from_collection=differs)
    if new is own:
        return result
    return replace(result, old_text=new.text, old_key=new.key, other_key=new.other_key, is_from_collection=True)
