"""Reads the keys and styles of recordings from CSV files."""

from __future__ import annotations

from pathlib import Path

from stonecli.errors import LabelsError, reason
from stonecli.evaluation.labels import read_rows
from stonecli.key import Key
from stonecli_train.corpus.annotation import NO_KEY
from stonecli_train.corpus.styles import STYLES
from stonecli_train.errors import DataError


def read_labels(path: Path) -> list[tuple[Path, Key | None]]:
    """Path and key of each recording in a CSV; the key is None for a recording without one.

    The columns are ``path`` (absolute, or relative to the CSV) and ``key`` (any spelling, or ``none``). A file that is
    listed again with the same key counts once.

    Raises:
        DataError: a column is missing, a key is invalid, or a file does not exist or is listed with two keys.
        OSError: the CSV cannot be read.
    """
    labels: dict[Path, tuple[Path, Key | None]] = {}
    try:
        for line, row in read_rows(path):
            try:
                recording, key = _read_label(row, path.parent)
                _, before = labels.setdefault(recording.resolve(), (recording, key))
            except (ValueError, OSError) as error:
                raise LabelsError(f"line {line}: {reason(error)}") from error
            if before != key:
                raise LabelsError(
                    f"line {line}: {row['path']} is labeled {_name(key)}, but {_name(before)} in an earlier line"
                )
    except LabelsError as error:
        raise DataError(f"{path.name}: {error}") from error
    if not labels:
        raise DataError(f"{path.name}: the file contains no labels")
    return list(labels.values())


def read_styles(path: Path) -> dict[Path, int]:
    """Index in ``STYLES`` of each rendering in a CSV of labels, by resolved path.

    Rows without a style, or with an unknown one, are skipped.

    Raises:
        LabelsError, OSError: the CSV cannot be read.
    """
    indices = {name: index for index, name in enumerate(STYLES)}
    rows = ((row["path"], row.get("style", "")) for _, row in read_rows(path))
    return {(path.parent / name).resolve(): indices[style] for name, style in rows if style in indices}


def _name(key: Key | None) -> str:
    return key.name if key else "no key"


def _read_label(row: dict[str, str], folder: Path) -> tuple[Path, Key | None]:
    key = None if row["key"].lower() == NO_KEY else Key.parse(row["key"])
    recording = folder / row["path"]
    if not recording.is_file():
        raise ValueError(f"no such file: {row['path']}")
    return recording, key
