"""Reads, writes, removes and restores key tags, without changing anything else in the file.

``mutagen`` reads. Writing is done by byte splices, with one module per container family, because a library that parses
and renders a whole tag also sorts, merges, re-encodes or drops parts of it (frame flags, ID3v1 after APEv2, genre
atoms, comments that are not valid UTF-8), and stone must not change any of these. ``mutagen`` then reads the finished
copy and must find the expected tags before the copy replaces the file.
"""

from stonecli.tags.read import read_key, read_tags
from stonecli.tags.rules import Field, FieldRule, KeyTags, WriteMode
from stonecli.tags.undo.runs import Undone, recorded, undo_run
from stonecli.tags.write import conflicting_text, remove_key, undo_change, write_key, write_tags

__all__ = [
    "Field",
    "FieldRule",
    "KeyTags",
    "Undone",
    "WriteMode",
    "conflicting_text",
    "read_key",
    "read_tags",
    "recorded",
    "remove_key",
    "undo_change",
    "undo_run",
    "write_key",
    "write_tags",
]
