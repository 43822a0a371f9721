"""Estimates and results as the records of ``--json`` and ``--output`` (docs/formats.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # stone analyze needs no tags, and starts faster without these imports
    from stonecli.detection.estimate import KeyEstimate, Window
    from stonecli.key import Key
    from stonecli.library.locations import Location
    from stonecli.model.session import KeyModel
    from stonecli.tagging import TagResult
    from stonecli.tempo.estimate import TempoEstimate

CSV_COLUMNS = (
    "path",
    "camelot",
    "key",
    "open_key",
    "confidence",
    "old_key",
    "tuning_cents",
    "duration",
    "error",
    "status",
    "detected_key",
    "tag_key",
    "relation",
)
BPM_COLUMNS = ("bpm", "old_bpm", "bpm_confidence", "bpm_alternative", "stability")
"""Columns after ``CSV_COLUMNS`` in a run with ``--bpm``."""
DIGITS = 4
ALTERNATIVES = 3  # besides the key itself


def key_record(key: Key | None) -> dict[str, str] | None:
    """The key in all three notations, or None."""
    return None if key is None else {"musical": key.musical, "camelot": key.camelot, "open_key": key.open_key}


def estimate_record(
    path: Location, estimate: KeyEstimate | None, error: str | None, model: KeyModel | None, *, per_window: bool = False
) -> dict[str, Any]:
    """The JSON object for one file; it has ``windows`` only with ``per_window``."""
    record: dict[str, Any] = {
        "path": str(path),
        "key": key_record(estimate.key) if estimate else None,
        "confidence": round(estimate.confidence, DIGITS) if estimate else None,
        "alternatives": alternatives_record(estimate) if estimate else [],
        "tuning_cents": _rounded(estimate.tuning_cents, 1) if estimate else None,
        "duration": round(estimate.duration, 3) if estimate else None,
        "segments": [
            {
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "key": key_record(segment.key),
                "confidence": round(segment.confidence, DIGITS),
            }
            for segment in (estimate.segments if estimate else ())
        ],
    }
    if per_window:
        record["windows"] = [_window_record(window) for window in (estimate.windows if estimate else ())]
    record |= {
        "first_key": key_record(estimate.first_key) if estimate else None,
        "last_key": key_record(estimate.last_key) if estimate else None,
        "other_name": key_record(estimate.other_name) if estimate else None,
        "tuning_confidence": _rounded(estimate.tuning_confidence, DIGITS) if estimate else None,
    }
    if estimate is not None and estimate.tempo is not None:
        record["tempo"] = tempo_record(estimate.tempo)
    return record | {"model": model_record(model) if model else None, "error": error}


def tempo_record(tempo: TempoEstimate) -> dict[str, Any]:
    """The estimated tempo as a JSON object."""
    return {
        "bpm": _rounded(tempo.bpm, 2),
        "confidence": round(tempo.confidence, DIGITS),
        "alternative": _rounded(tempo.alternative, 2),
        "stability": round(tempo.stability, DIGITS),
        "steady": tempo.is_steady,
    }


def model_record(model: KeyModel) -> str:
    """Name of the model and first digits of its SHA-256."""
    return f"{model.name}@{model.sha256[:12]}"


def alternatives_record(estimate: KeyEstimate) -> list[dict[str, Any]]:
    """The next best keys; empty without a key."""
    if estimate.key is None:
        return []
    return [
        {"key": key_record(key), "probability": round(probability, DIGITS)}
        for key, probability in estimate.alternatives[1 : 1 + ALTERNATIVES]
    ]


def tag_record(
    path: Location, result: TagResult | None, error: str | None, model: KeyModel | None, *, bpm: bool = False
) -> dict[str, Any]:
    """The JSON object of ``stone tag``: that of the analysis, with the key that the tags had.

    With ``bpm`` it always has ``tempo``, the estimate, which may be None, and also ``bpm`` and ``old_bpm``.

    ``key`` is the key of the file: its own if it was kept, the detected one otherwise. The fields of the analysis
    (confidence, alternatives, segments) belong to ``detected_key``, which is None if none was detected. ``tag_key`` is
    the key that ``old_key``, the text in the tags before the run, names; ``old_key_from`` is ``collection`` if this
    text is from a rekordbox collection instead. ``other_tag_key`` is another key that the tags had.
    """
    record = estimate_record(path, result.estimate if result else None, error, model)
    origin = None if result is None or result.old_text is None else "collection" if result.is_from_collection else "tag"
    detected = record["key"]
    if result is not None:
        record["key"] = key_record(result.key)
    if bpm:
        record.setdefault("tempo", None)
        record |= {"bpm": result.bpm if result else None, "old_bpm": result.old_bpm_text if result else None}
    return record | {
        "old_key": result.old_text if result else None,
        "status": result.status if result else "error",
        "detected_key": detected,
        "tag_key": key_record(result.old_key) if result else None,
        "relation": result.relation if result else None,
        "old_key_from": origin,
        "other_tag_key": key_record(result.other_key) if result else None,
    }


def tag_row(record: dict[str, Any]) -> dict[str, Any]:
    """The values of a CSV row by column, from a record of :func:`tag_record`; missing values are ""."""
    key = record["key"] or {"camelot": "", "musical": "", "open_key": ""}
    values = record | {"camelot": key["camelot"], "key": key["musical"], "open_key": key["open_key"]}
    for name in ("detected_key", "tag_key"):
        values[name] = (record[name] or {"musical": ""})["musical"]
    if "bpm" in record:
        tempo = record["tempo"] or {"confidence": None, "alternative": None, "stability": None}
        values |= {f"bpm_{name}": tempo[name] for name in ("confidence", "alternative")}
        values["stability"] = tempo["stability"]
    columns = (*CSV_COLUMNS, *BPM_COLUMNS) if "bpm" in record else CSV_COLUMNS
    return {column: "" if values[column] is None else values[column] for column in columns}


def _window_record(window: Window) -> dict[str, Any]:
    return {
        "start": round(window.start, 3),
        "end": round(window.end, 3),
        "key": key_record(window.key),
        "confidence": round(window.confidence, DIGITS),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
