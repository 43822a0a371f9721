"""Hears the musical key of recordings.

    >>> from stonecli import detect_key
    >>> estimate = detect_key("song.mp3")
    >>> estimate.key.camelot, estimate.confidence  # doctest: +SKIP
    ('8A', 0.91)

The names below are loaded on first use, so that ``import stonecli`` (and ``stone --help``) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stonecli._version import __version__

if TYPE_CHECKING:
    from stonecli.detect import KeyEstimate, detect_key
    from stonecli.key import Key
    from stonecli.model import KeyModel

__all__ = ["Key", "KeyEstimate", "KeyModel", "__version__", "detect_key"]

_LAZY = {
    "Key": "stonecli.key",
    "KeyEstimate": "stonecli.detect",
    "KeyModel": "stonecli.model",
    "detect_key": "stonecli.detect",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'stonecli' has no attribute {name!r}")
