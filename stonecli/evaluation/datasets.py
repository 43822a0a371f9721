"""Write the labels of a dataset of mirdata to a CSV for ``stone evaluate``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stonecli.errors import DatasetError, reason
from stonecli.key import Key
from stonecli.util.atomic_file import atomic_file
from stonecli.util.installation import how_to_install

Report = Callable[[str], None]


def open_dataset(name: str, folder: Path, report: Report) -> Any:
    """The mirdata dataset in ``folder``; what mirdata can download is downloaded if the folder does not exist.

    Raises:
        DatasetError: mirdata is not installed, does not know the name, or cannot download the dataset.
    """
    try:
        import mirdata
    except ModuleNotFoundError as error:
        raise DatasetError(f"--dataset needs {error.name}; {how_to_install('datasets')}") from error
    if name not in mirdata.list_datasets():
        raise DatasetError(f"--dataset {name}: must be one of {', '.join(mirdata.list_datasets())}")
    dataset = mirdata.initialize(name, data_home=str(folder))
    if not Path(dataset.index_path).exists() or not folder.exists():
        report(f"downloading {name} to {folder}")
        try:
            dataset.download()
        except Exception as error:  # mirdata, requests and archives raise many kinds
            raise DatasetError(f"--dataset {name}: download failed: {reason(error)}") from error
    return dataset


def write_labels(dataset: Any, path: Path, report: Report) -> int:
    """Write a CSV with the columns path and key of the recordings of the dataset, and return their number.

    A recording that changes key gets the key with the longest total duration. Recordings without audio, without a key,
    or with a key outside the 24 are counted in a line of ``report``.

    Raises:
        DatasetError: no recording has both audio and a key.
        OSError: the CSV cannot be written.
    """
    rows, without_audio, without_key = [], 0, 0
    for track in dataset.load_tracks().values():
        audio = getattr(track, "audio_path", None)
        key = _key_of(track)
        if audio is None or not Path(audio).is_file():
            without_audio += 1
        elif key is None:
            without_key += 1
        else:
            rows.append((str(Path(audio).resolve()), key.name))
    if without_audio or without_key:
        report(f"{dataset.name}: {without_audio} recordings without audio and {without_key} without a key are skipped")
    if not rows:
        raise DatasetError(f"{dataset.name}: no recording with audio and a key in {dataset.data_home}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "key"))
        writer.writerows(rows)
    return len(rows)


def _key_of(track: Any) -> Key | None:
    """The key of a mirdata track, which is a text, a list of texts, or keys with time intervals.

    Some datasets have the tonic in ``key`` and the mode in ``mode``.
    """
    found: dict[Key, float] = {}
    mode = getattr(track, "mode", None)
    for text, seconds in _texts(getattr(track, "key", None)):
        try:
            key = Key.parse(f"{text} {mode}" if isinstance(mode, str) else text)
        except ValueError:
            continue
        found[key] = found.get(key, 0.0) + seconds
    return max(found, key=lambda key: found[key]) if found else None


def _texts(value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, str):
        yield value.strip(), 1.0
    elif isinstance(value, list | tuple):
        for entry in value:
            yield str(entry).strip(), 1.0
    elif value is not None and hasattr(value, "keys") and hasattr(value, "intervals"):
        for text, (start, end) in zip(value.keys, value.intervals, strict=True):
            yield str(text).strip(), float(end) - float(start)
