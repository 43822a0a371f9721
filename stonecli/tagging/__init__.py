"""Detects keys and writes them to tags: for one file (:class:`Tagger`), for a library (:func:`tag_library`), and for
the files that arrive in a folder (:func:`watch_folder`).

``stone tag``, ``stone watch``, the workers of a cluster and the beets plugin all work through this package.
"""

from stonecli.tagging.converter import Converter
from stonecli.tagging.library import ComparisonSummary, compare_library, convert_library, tag_library
from stonecli.tagging.options import PREVIEW, TagOptions
from stonecli.tagging.results import OnResult, ResultCounter, Status, TagResult, TagSummary
from stonecli.tagging.tagger import FileAction, LocationTagger, Remover, Tagger, make_tagger, open_tagger
from stonecli.tagging.watch import watch_folder

__all__ = [
    "PREVIEW",
    "ComparisonSummary",
    "Converter",
    "FileAction",
    "LocationTagger",
    "OnResult",
    "Remover",
    "ResultCounter",
    "Status",
    "TagOptions",
    "TagResult",
    "TagSummary",
    "Tagger",
    "compare_library",
    "convert_library",
    "make_tagger",
    "open_tagger",
    "tag_library",
    "watch_folder",
]
