"""Detects the musical key of recordings.

    >>> from stonecli import detect_key
    >>> estimate = detect_key("song.mp3")
    >>> estimate.key.camelot, estimate.confidence
    ('8A', 0.91)

``tag_library``, ``watch_folder``, ``analyze``, ``evaluate``, ``mix`` and ``undo_run`` do what the commands of stone do
(docs/python.md).

The names below are loaded on first use, so that ``import stonecli`` (and ``stone --help``) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stonecli._version import __version__

if TYPE_CHECKING:
    from stonecli.detection.detect import detect_key
    from stonecli.detection.estimate import KeyEstimate
    from stonecli.detection.many import AnalysisSummary, analyze, detect_keys
    from stonecli.errors import StoneError
    from stonecli.evaluation.evaluate import Evaluation
    from stonecli.evaluation.measure import evaluate
    from stonecli.jobs import Outcome
    from stonecli.key import Key
    from stonecli.mixing.mix import Compatible, Mix, MixOptions, compatible, mix
    from stonecli.mixing.transitions import CostRules
    from stonecli.model.session import KeyModel
    from stonecli.tagging import (
        ComparisonSummary,
        TagOptions,
        TagResult,
        TagSummary,
        compare_library,
        convert_library,
        tag_library,
        watch_folder,
    )
    from stonecli.tags import FieldRule, read_key, undo_run, write_key

__all__ = [
    "AnalysisSummary",
    "ComparisonSummary",
    "Compatible",
    "CostRules",
    "Evaluation",
    "FieldRule",
    "Key",
    "KeyEstimate",
    "KeyModel",
    "Mix",
    "MixOptions",
    "Outcome",
    "StoneError",
    "TagOptions",
    "TagResult",
    "TagSummary",
    "__version__",
    "analyze",
    "compare_library",
    "compatible",
    "convert_library",
    "detect_key",
    "detect_keys",
    "evaluate",
    "mix",
    "read_key",
    "tag_library",
    "undo_run",
    "watch_folder",
    "write_key",
]

_MODULES = {
    "detection.detect": ("detect_key",),
    "detection.estimate": ("KeyEstimate",),
    "detection.many": ("AnalysisSummary", "analyze", "detect_keys"),
    "errors": ("StoneError",),
    "evaluation.evaluate": ("Evaluation",),
    "evaluation.measure": ("evaluate",),
    "jobs": ("Outcome",),
    "key": ("Key",),
    "mixing.mix": ("Compatible", "Mix", "MixOptions", "compatible", "mix"),
    "mixing.transitions": ("CostRules",),
    "model.session": ("KeyModel",),
    "tagging": (
        "ComparisonSummary",
        "TagOptions",
        "TagResult",
        "TagSummary",
        "compare_library",
        "convert_library",
        "tag_library",
        "watch_folder",
    ),
    "tags": ("FieldRule", "read_key", "undo_run", "write_key"),
}
_LAZY = {name: f"stonecli.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'stonecli' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, also those that are not loaded yet: for ``dir(stonecli)`` and completion with Tab."""
    return sorted({*globals(), *__all__})
