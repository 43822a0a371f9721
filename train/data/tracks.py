"""Finds the recordings to train on, and computes their features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stonecli.jobs import default_jobs, run
from stonecli.key import Key
from stonecli.library.walk import find_music
from stonecli_train.data.labels import read_labels, read_styles
from stonecli_train.errors import DataError
from stonecli_train.features import FeatureCache
from stonecli_train.parallel import SINGLE_PROCESS, Processes, gather_objects
from stonecli_train.pseudo_labels import PseudoLabels

UNKNOWN_STYLE = -1

Report = Callable[[str], None]


@dataclass(frozen=True)
class Track:
    """A recording with its features and label.

    Attributes:
        features: .npy file of uint8 [frames, bins].
        key: the labeled key; None for an unlabeled track, and for one that is labeled "no key".
        keyless: whether the label is "no key".
        pseudo_labels: pseudo-labels of an unlabeled track; None without teachers.
        style: index of a rendering's style in ``stonecli_train.corpus.styles.STYLES``, or ``UNKNOWN_STYLE``.
        name: path of the recording relative to its folder, by which a resumed run identifies it.
    """

    features: Path
    key: Key | None = None
    keyless: bool = False
    pseudo_labels: PseudoLabels | None = None
    style: int = UNKNOWN_STYLE
    name: str = ""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that identify the recording in checkpoints, without revealing its file name."""
        name = self.name or self.features.name
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class _Item:
    """A recording to train on: its path and label."""

    path: Path
    name: str
    key: Key | None = None
    keyless: bool = False


def collect_tracks(
    folder: Path | None,
    labels: Path | None,
    cache: FeatureCache,
    report: Report = print,
    *,
    processes: Processes = SINGLE_PROCESS,
    check: Callable[[Sequence[Track], Sequence[Track]], None] = lambda unlabeled, labeled: None,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> tuple[list[Track], list[Track]]:
    """Unlabeled and labeled tracks with their features in the cache.

    Files that cannot be decoded are reported and skipped. A labeled file is not also used as an unlabeled one. Each
    of several processes decodes its share and waits for the others.

    Args:
        folder: folder of unlabeled recordings; None for none.
        labels: CSV of labeled recordings; None for none.
        cache: cache of the features.
        report: called with a message per skipped file.
        processes: the processes of the training run.
        check: called with the unlabeled and labeled tracks before decoding, to report unsuitable data early.
        progress: called with the number of recordings that this process has decoded, and their total.

    Raises:
        DataError: there is nothing to train on, or the labels are invalid.
        OSError: the labels cannot be read, or the cache cannot be written.
    """
    items = _items(folder, labels, report)
    styles = read_styles(labels) if labels else {}
    check(*_by_kind([_track(item, item.path, styles) for item in items]))
    tracks: list[Track] = []
    for item, (features, error) in zip(items, _decoded_by_all(items, cache, processes, progress), strict=True):
        if features is None:
            report(f"{item.path}: {error}")
        else:
            tracks.append(_track(item, features, styles))
    if not tracks:
        raise DataError("there is no audio to train on" + (f" in {folder}" if folder else ""))
    return _by_kind(tracks)


def _items(folder: Path | None, labels: Path | None, report: Report) -> list[_Item]:
    labeled = read_labels(labels) if labels else []
    known = {path.resolve() for path, _ in labeled}
    items = [_Item(path, _relative(path, labels), key, key is None) for path, key in labeled]
    for finding in find_music([folder] if folder else []):
        if finding.error is not None:
            report(f"{finding.path}: {finding.error}")
        elif finding.path.resolve() not in known:
            items.append(_Item(finding.path, _relative(finding.path, folder and folder / "-")))
    return items


def _relative(path: Path, beside: Path | None) -> str:
    """Path of a recording relative to its folder, which stays the same when the folder is moved."""
    base = beside.parent if beside else path.parent
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _decoded_by_all(
    items: Sequence[_Item], cache: FeatureCache, processes: Processes, progress: Callable[[int, int], None]
) -> list[tuple[Path | None, str | None]]:
    """The result of ``_decoded`` for all items, of which each process decodes its share."""
    parts = gather_objects(_decoded(items[processes.rank :: processes.count], cache, progress), processes)
    outcomes = [parts[index % len(parts)][index // len(parts)] for index in range(len(items))]
    remote = [
        index for index, (features, _) in enumerate(outcomes) if features is not None and not features.exists()
    ]  # cached on another machine
    local = dict(zip(remote, _decoded([items[index] for index in remote], cache, progress), strict=True))
    return [local.get(index, outcome) for index, outcome in enumerate(outcomes)]


def _decoded(
    items: Sequence[_Item], cache: FeatureCache, progress: Callable[[int, int], None]
) -> list[tuple[Path | None, str | None]]:
    """Path of the features of each item, or the error message."""
    found = []
    with ThreadPoolExecutor(default_jobs()) as executor:
        outcomes = run(lambda item: cache.features(item.path), items, executor=executor, in_flight=2 * default_jobs())
        for done, outcome in enumerate(outcomes, 1):
            found.append((outcome.result, outcome.error))
            progress(done, len(items))
    return found


def _track(item: _Item, features: Path, styles: Mapping[Path, int]) -> Track:
    style = styles.get(item.path.resolve(), UNKNOWN_STYLE) if styles else UNKNOWN_STYLE
    return Track(features, item.key, item.keyless, style=style, name=item.name)


def _by_kind(tracks: Sequence[Track]) -> tuple[list[Track], list[Track]]:
    """Tracks without and with labels."""
    labeled = [track for track in tracks if track.key or track.keyless]
    return [track for track in tracks if not (track.key or track.keyless)], labeled
