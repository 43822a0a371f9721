"""Detects the musical key of recordings.

    >>> from stonecli import detect_key
    >>> estimate = detect_key("song.mp3")
    >>> estimate.key.camelot, estimate.confidence
    ('8A', 0.91)

``detect_keys`` analyzes many files; ``stonecli.tags`` reads and writes their tags (docs/python.md).

The names below are loaded on first use, so that ``import stonecli`` (and ``stone --help``) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stonecli._version import __version__

if TYPE_CHECKING:
    from stonecli.detection.detect import KeyEstimate, detect_key
    from stonecli.detection.many import detect_keys
    from stonecli.errors import StoneError
    from stonecli.jobs import Outcome
    from stonecli.key import Key
    from stonecli.model.session import KeyModel

__all__ = ["Key", "KeyEstimate", "KeyModel", "Outcome", "StoneError", "__version__", "detect_key", "detect_keys"]

_LAZY = {
    "Key": "stonecli.key",
    "KeyEstimate": "stonecli.detection.detect",
    "KeyModel": "stonecli.model.session",
    "Outcome": "stonecli.jobs",
    "StoneError": "stonecli.errors",
    "detect_key": "stonecli.detection.detect",
    "detect_keys": "stonecli.detection.many",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'stonecli' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, also those that are not loaded yet: for ``dir(stonecli)`` and completion with Tab."""
    return sorted({*globals(), *__all__})
