"""Write results to a self-contained HTML page: track list, wheel of keys, compatible tracks and a set to build.

The template is ``page.html`` in this folder, with ``page.css`` and ``page.js``. The data are inserted as JSON, and the
script shows them as text. The page makes no network requests: its Content-Security-Policy forbids them, and permits
only this style sheet and this script, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from stonecli.detection.estimate import KeyEstimate, Window
from stonecli.detection.segments import Segment
from stonecli.key import AGREEMENTS, Key
from stonecli.library.locations import Location
from stonecli.mixing.transitions import (
    COMPATIBLE_COST,
    COST_PER_CENT,
    COST_PER_PERCENT,
    FREE_CENTS,
    HALF_TEMPO_COST,
    KEY_COSTS,
    MAX_TEMPO_COST,
    end_keys,
    key_transition,
)
from stonecli.output.playlist import file_uri
from stonecli.output.records import ALTERNATIVES
from stonecli.tags.track_info import TrackInfo
from stonecli.util.atomic_file import atomic_text_file
from stonecli.util.key_colors import key_hex
from stonecli.util.text import printable

_DATA_MARK, _STYLE_MARK, _SCRIPT_MARK, _POLICY_MARK = "@DATA@", "@STYLE@", "@SCRIPT@", "@POLICY@"
_SHARPS = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
_FLATS = ("c", "db", "d", "eb", "e", "f", "gb", "g", "ab", "a", "bb", "b")


def page_track(
    path: Location,
    key: Key | None,
    estimate: KeyEstimate | None,
    info: TrackInfo,
    status: str,
    error: str | None = None,
    old_text: str | None = None,
    old_key: Key | None = None,
    *,
    is_from_collection: bool = False,
    other_key: Key | None = None,
) -> dict[str, Any]:
    """The data of one track for the script of the page; keys by ``Key.index``, -1 for no key.

    ``key`` is the key of the track, and ``estimate`` the detected one; in a kept file they may differ. ``old_text`` is
    the key text in the file before the run, and ``old_key`` the key that it names.
    ``is_from_collection`` tells that both are from a rekordbox collection, because the file has no key.
    ``other_key`` is another key that the tags had.
    """
    first, last = end_keys(key, estimate) if key is not None else (None, None)
    return {
        "path": printable(path.as_posix() if isinstance(path, Path) else str(path)),
        "uri": file_uri(path) if error is None and isinstance(path, Path) else None,
        "title": printable(info.title),
        "artist": printable(info.artist),
        "genre": printable(info.genre),
        "bpm": info.bpm,
        "key": _index(key),
        "detected": _index(estimate.key) if estimate else None,
        "old": None if old_text is None else printable(old_text),
        "tag": _index(old_key),
        "collection": is_from_collection,
        "other": None if other_key is None else other_key.camelot,
        "in": _index(first),
        "out": _index(last),
        "confidence": round(estimate.confidence, 3) if estimate and estimate.key else None,
        "cents": round(estimate.tuning_cents, 1) if estimate and estimate.tuning_cents is not None else None,
        "seconds": _seconds(estimate.duration if estimate else info.seconds),
        "segments": _spans(estimate.segments if estimate else ()),
        "windows": _spans(estimate.windows if estimate else ()),
        "alternatives": [
            [other.index, round(share, 3)]
            for other, share in (estimate.alternatives[1 : 1 + ALTERNATIVES] if estimate and estimate.key else ())
        ],
        "status": status,
        "error": None if error is None else printable(error),
    }


def save_page(path: Path, tracks: Sequence[dict[str, Any]]) -> None:
    """Write a page of tracks, as returned by :func:`page_track`, to ``path``.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; media-src file:; img-src data:"
    )
    page = _part("page.html").replace(_POLICY_MARK, policy)
    page = page.replace(_STYLE_MARK, style).replace(_SCRIPT_MARK, script)
    before, after = page.split(_DATA_MARK)
    with atomic_text_file(path) as file:
        file.write(before)
        file.write(script_json({**_constants(), "tracks": tracks}))
        file.write(after)


def _part(name: str) -> str:
    return (resources.files("stonecli.output") / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The source expression of a Content-Security-Policy for an inline element with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def script_json(data: Any) -> str:
    """``data`` as JSON that is safe in an HTML script element: ASCII, without ``<``, ``>`` and ``&``."""
    text = json.dumps(data, separators=(",", ":"))  # ASCII: no U+2028, no byte that is not UTF-8
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _constants() -> dict[str, Any]:
    names = list(KEY_COSTS)
    return {
        "keys": [
            {
                "camelot": key.camelot,
                "musical": key.musical,
                "open": key.open_key,
                "spellings": _spellings(key),
                "name": key.name,
                "wheel": key.wheel,
                "minor": key.mode == "minor",
                "position": 2 * key.wheel + (key.mode == "major"),
                "color": key_hex(key),
                "shifted": [key.transposed(shift).index for shift in (-1, 0, 1)],
            }
            for key in Key.all()
        ],
        "transitions": {
            "names": names,
            "costs": [KEY_COSTS[name] for name in names],
            "between": [[names.index(key_transition(one, other)) for other in Key.all()] for one in Key.all()],
        },
        "relations": {
            "names": AGREEMENTS,
            "between": [[AGREEMENTS.index(one.agreement_with(tag)) for one in Key.all()] for tag in Key.all()],
        },
        "separator": os.sep,
        "limits": {
            "compatible": COMPATIBLE_COST,
            "freeCents": FREE_CENTS,
            "perCent": COST_PER_CENT,
            "perPercent": COST_PER_PERCENT,
            "maxTempo": MAX_TEMPO_COST,
            "halfTempo": HALF_TEMPO_COST,
        },
    }


def _spellings(key: Key) -> list[str]:
    """The search terms for this key, in lower case: Camelot, Open Key, and the tonic with a sharp or a flat."""
    tonics = dict.fromkeys((_SHARPS[key.tonic], _FLATS[key.tonic]))
    names = [tonic + ("m" if key.mode == "minor" else "") for tonic in tonics]
    return [key.camelot.lower(), key.open_key.lower(), *names]


def _spans(parts: Sequence[Segment | Window]) -> list[list[float]]:
    """Start, end, key and confidence of segments or windows."""
    return [[round(part.start, 1), round(part.end, 1), _index(part.key), round(part.confidence, 2)] for part in parts]


def _index(key: Key | None) -> int:
    return -1 if key is None else key.index


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
