"""Key tags: read, written, and taken out again, without touching anything else in the file.

``mutagen`` reads. Writing is done as byte splices of our own, one module per container family, because a tag library
that parses and renders a whole tag also sorts, merges, re-encodes or drops what it holds (frame flags, ID3v1 after
APEv2, genre atoms, comments that are not valid UTF-8), and here all of it has to stay. ``mutagen`` then reads the
finished copy and has to agree, before the copy takes the file's place.
"""

from stonecli.tags.read import read_key, read_tags
from stonecli.tags.rules import Field, FieldRule, KeyTags, WriteMode
from stonecli.tags.undo.runs import Undone, recorded, undo_run
from stonecli.tags.write import remove_key, take_back, write_key

__all__ = [
    "Field",
    "FieldRule",
    "KeyTags",
    "Undone",
    "WriteMode",
    "read_key",
    "read_tags",
    "recorded",
    "remove_key",
    "take_back",
    "undo_run",
    "write_key",
]
