"""Makes batches of feature segments from music files; each batch depends on the step's number only.

A batch is a function of (seed, step, row): a run resumed at step n gets the same batches, worker processes need no
state, and each of several training processes makes only its own rows.

The rule for two segments of one track: both have ``segment_frames`` frames and do not overlap; the remaining frames are
distributed at random before, between and after them, and their order is random. A track shorter than two segments gives
two with minimal overlap: its first frames and its last. A track shorter than one segment is repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from stonecli.errors import LabelsError, StoneError, reason
from stonecli.evaluation.labels import read_rows
from stonecli.jobs import default_jobs, run
from stonecli.key import Key
from stonecli.library.walk import find_music
from stonecli_train.augment import augmented
from stonecli_train.config import TrainConfig
from stonecli_train.corpus.annotation import COLUMNS, FRAME_SECONDS, NO_KEY, SCORE, UNKNOWN
from stonecli_train.corpus.styles import STYLES
from stonecli_train.features import FeatureCache, load_features
from stonecli_train.parallel import ALONE, Processes, gather_objects
from stonecli_train.pseudo_labels import PseudoLabels, TeacherEnsemble, confirmed_by_chroma

NO_KEY_INDEX = 24
UNKNOWN_STYLE = -1
_REPORT_EVERY = 100  # recordings
_ENDLESS = "it has to give batches without end"

Segment = npt.NDArray[np.uint8]
_Row = tuple[Segment, Segment, int, tuple[int, int], npt.NDArray[np.float32], Segment, int]
_NO_PSEUDO_LABEL = np.zeros(0, dtype=np.float32)
_NO_SCORE = np.zeros((0, len(COLUMNS)), dtype=np.uint8)
Report = Callable[[str], None]


class DataError(StoneError):
    """The training data is missing or invalid."""


@dataclass(frozen=True)
class Track:
    """A recording's features.

    Attributes:
        features: .npy file of uint8 [frames, bins].
        key: the label; None for an unlabeled track, and for one without a key.
        keyless: whether its label is "no key".
        pseudo_labels: the teachers' pseudo-labels of an unlabeled track, if any.
        name: of the recording within its folder, by which a resumed run identifies it.
        style: index of a rendering's style in ``stonecli_train.corpus.styles.STYLES``, or ``UNKNOWN_STYLE``.
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
class Batch:
    """Rows of a step.

    Attributes:
        first: uint8 [rows, frames, bins], a segment of each track.
        second: the same, another segment; empty (0 rows) for a labeled batch, and for one with pseudo-labels.
        labels: int64 [rows], ``Key.index`` or ``NO_KEY_INDEX``; empty for an unlabeled batch.
        shifts: int64 [rows, 2], bins cropped from below for the plain and the transposed view, 0..15 each.
        pseudo_labels: float32 [rows, 24], the teachers' probabilities by ``Key.index``; empty without teachers.
        score: uint8 [rows, moments, 4], ``stonecli_train.corpus.annotation`` of the segments of a labeled batch, one
            moment per input frame of the network; empty if the run has no auxiliary losses.
        styles: int64 [rows], ``Track.style``; empty if ``score`` is.
    """

    first: Tensor
    second: Tensor
    labels: Tensor
    shifts: Tensor
    pseudo_labels: Tensor = field(default_factory=lambda: torch.empty(0))
    score: Tensor = field(default_factory=lambda: torch.empty(0))
    styles: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def is_labeled(self) -> bool:
        """Whether the batch has labels."""
        return len(self.labels) > 0

    @property
    def has_pseudo_labels(self) -> bool:
        """Whether the batch has pseudo-labels."""
        return len(self.pseudo_labels) > 0

    @property
    def is_scored(self) -> bool:
        """Whether the batch has scores and styles, for auxiliary losses."""
        return len(self.score) > 0

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        return Batch(*(getattr(self, item.name).to(device) for item in fields(self)))


def read_labels(path: Path) -> list[tuple[Path, Key | None]]:
    """The rows of a CSV with columns ``path`` (relative to the CSV, or absolute) and ``key`` (any spelling;
    ``none`` for a recording without a key: None).

    A file that is listed again with the same key counts once.

    Raises:
        DataError: a column is missing, a line has no valid key, or a file does not exist or is listed with two keys.
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
                raise LabelsError(f"line {line}: {row['path']} is labeled {_name(key)}, but {_name(before)} before")
    except LabelsError as error:
        raise DataError(f"{path.name}: {error}") from error
    if not labels:
        raise DataError(f"{path.name}: the file contains no labels")
    return list(labels.values())


def read_styles(path: Path) -> dict[Path, int]:
    """Index in ``STYLES`` of each rendering in a CSV of ``read_labels``, by resolved path.

    Rows with no style or an unknown one are skipped.

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
    processes: Processes = ALONE,
    check: Callable[[Sequence[Track], Sequence[Track]], None] = lambda unlabeled, labeled: None,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> tuple[list[Track], list[Track]]:
    """Unlabeled and labeled tracks with their features in the cache.

    Files that cannot be decoded are reported and skipped. A labeled file is not used as an unlabeled one as well. Each
    of several processes decodes its share and waits for the others.

    Args:
        folder, labels: of recordings without and with labels.
        cache: of features.
        report: called with a message per skipped file.
        processes: of the training run.
        check: called with the tracks before decoding, to report unsuitable data early.
        progress: called with the number of recordings that this process has decoded, and their total.

    Raises:
        DataError: there is nothing to train on, or the labels are invalid.
    """
    items = _items(folder, labels, report)
    styles = read_styles(labels) if labels else {}
    check(*_by_kind([_track(item, item.path, styles) for item in items]))
    parts = gather_objects(_decoded(items[processes.rank :: processes.count], cache, progress), processes)
    outcomes = [parts[index % len(parts)][index // len(parts)] for index in range(len(items))]
    elsewhere = [
        index for index, (features, _) in enumerate(outcomes) if features is not None and not features.exists()
    ]  # cached on another machine
    again = _decoded([items[index] for index in elsewhere], cache, progress)
    outcomes = [dict(zip(elsewhere, again, strict=True)).get(index, old) for index, old in enumerate(outcomes)]
    tracks: list[Track] = []
    for item, (features, error) in zip(items, outcomes, strict=True):
        if features is None:
            report(f"{item.path}: {error}")
        else:
            tracks.append(_track(item, features, styles))
    if not tracks:
        raise DataError("no audio to train on" + (f" in {folder}" if folder else ""))
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
    """The name of a recording within its folder, which stays the same when the folder is moved."""
    base = beside.parent if beside else path.parent
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _decoded(
    items: Sequence[_Item], cache: FeatureCache, progress: Callable[[int, int], None]
) -> list[tuple[Path | None, str | None]]:
    """For each item, the path of its features, or the error."""
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


def with_pseudo_labels(
    tracks: Sequence[Track], teachers: TeacherEnsemble, config: TrainConfig, report: Report = print
) -> list[Track]:
    """The unlabeled tracks with the teachers' pseudo-labels, filtered as ``config.loss`` says.

    Raises:
        DataError: no pseudo-label is confident enough.
        OSError: features cannot be read, or pseudo-labels cannot be stored.
    """
    found = []
    for number, track in enumerate(tracks, 1):
        pseudo_labels = teachers.pseudo_labels(track.features)
        if config.loss.chroma_agrees:
            features = load_features(track.features, config.vqt.n_bins)
            pseudo_labels = confirmed_by_chroma(pseudo_labels, features, config.segment_frames, config.network.n_bins)
        found.append(replace(track, pseudo_labels=pseudo_labels))
        if number % _REPORT_EVERY == 0:
            report(f"{number} of {len(tracks)} recordings analyzed by the teachers")
    confidences = np.concatenate(
        [np.zeros(0), *(track.pseudo_labels.keys.max(axis=1) for track in found if track.pseudo_labels)]
    )
    confident = int((confidences >= config.loss.min_confidence).sum())
    if not confident:
        raise DataError("the teachers are not confident of any key in the unlabeled tracks; lower loss.min_confidence")
    report(f"{len(tracks)} recordings: the teachers are confident of {confident} of {len(confidences)} segments")
    return found


@dataclass(frozen=True)
class Split:
    """Which tracks a run trains on and which it validates with, in order, by ``Track.digest``."""

    training: tuple[str, ...]
    validation: tuple[str, ...]

    @classmethod
    def of(cls, training: Iterable[Track], validation: Iterable[Track]) -> Split:
        """The split into these tracks."""
        return cls(tuple(track.digest for track in training), tuple(track.digest for track in validation))

    def as_dict(self) -> dict[str, str]:
        """The split as two strings, for a checkpoint."""
        return {"training": " ".join(self.training), "validation": " ".join(self.validation)}

    @classmethod
    def from_dict(cls, texts: Mapping[str, str]) -> Split:
        """The split that ``as_dict`` gave; raises KeyError, TypeError or AttributeError for anything else."""
        return cls(tuple(texts["training"].split()), tuple(texts["validation"].split()))

    def difference(self, before: Split) -> str:
        """A message about the changes from another split; empty if there are none."""
        if self == before:
            return ""
        ours, theirs = ({*split.training, *split.validation} for split in (self, before))
        moved = set(self.validation) ^ set(before.validation)
        counts = {
            "new": len(ours - theirs),
            "missing": len(theirs - ours),
            "moved between training and validation": len(moved & ours & theirs),
        }
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"other tracks ({shown or 'in another order'})"


def split_tracks(
    tracks: Sequence[Track], share: float, seed: int, before: Split | None = None
) -> tuple[list[Track], list[Track]]:
    """Training and validation tracks: each track is in one of them; both get at least one if there are two.

    Tracks of an earlier split stay where they were ``before``; new ones are for training. Tracks with and without a key
    are split separately if one part would otherwise get only tracks without a key.
    """
    if before is not None:
        known, held_out = set(before.training), set(before.validation)
        training = [track for track in tracks if track.digest in known or track.digest not in held_out]
        validation = [track for track in tracks if track.digest in held_out]
        if training and validation:
            return training, validation
    parts = _split(tracks, share, seed)
    if all(any(not track.keyless for track in part) for part in parts):
        return parts
    kinds = [[track for track in tracks if track.keyless == keyless] for keyless in (False, True)]
    (training, validation), (keyless_training, keyless_validation) = (_split(kind, share, seed) for kind in kinds)
    return [*training, *keyless_training], [*validation, *keyless_validation]


def _split(tracks: Sequence[Track], share: float, seed: int) -> tuple[list[Track], list[Track]]:
    order = np.random.default_rng([seed, 0x5117]).permutation(len(tracks))
    count = min(max(round(share * len(tracks)), 1), len(tracks) - 1) if len(tracks) > 1 else 0
    chosen = set(order[:count].tolist())
    training = [track for number, track in enumerate(tracks) if number not in chosen]
    return training, [tracks[number] for number in sorted(chosen)] or training


def check_tracks(unlabeled: Sequence[Track], labeled: Sequence[Track], config: TrainConfig) -> None:
    """Check that the loss can learn from these tracks.

    Raises:
        DataError: it cannot; the message says what to do.
    """
    if config.loss.name == "cross_entropy" and all(track.keyless for track in labeled):
        raise DataError("the cross_entropy loss needs labels: keys to learn from, and others to validate with")
    if config.loss.name != "cross_entropy" and any(track.keyless for track in labeled):
        raise DataError(
            f"the {config.loss.name} loss cannot learn from tracks without a key, which the labels call {NO_KEY}: "
            "leave them out, or take a --config with the cross_entropy loss (docs/training.md)"
        )


class StepDataset(Dataset[Batch]):
    """Batch number ``step`` of a run; there is no last step.

    With both kinds of tracks, labeled and unlabeled batches alternate: by default one each ([1] in
    ``stonecli_train.losses``: "mix"), otherwise by ``unlabeled_every``. Tracks are drawn uniformly with replacement
    (with ``balance_modes``, the mode first).

    Args:
        unlabeled, labeled: tracks; one list may be empty.
        config: of the run.
        purpose: numbers that separate the random streams of training, validation and restarts from the best checkpoint.
        rank, world_size: this process's share of every batch.
    """

    def __init__(
        self,
        unlabeled: Sequence[Track],
        labeled: Sequence[Track],
        config: TrainConfig,
        purpose: Sequence[int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if config.data.batch_size % world_size:
            raise DataError(f"a batch of {config.data.batch_size} cannot be shared by {world_size} processes")
        check_tracks(unlabeled, labeled, config)
        self._keyless = [track for track in labeled if track.keyless]
        self._labeled = tuple(track for track in labeled if not track.keyless)
        self._unlabeled = tuple(unlabeled)
        uses_pseudo_labels = config.loss.name == "cross_entropy" and config.loss.unlabeled == "pseudo_labels"
        self._pseudo_labels = _pseudo_labels_by_mode(unlabeled, config) if uses_pseudo_labels else []
        self._has_targets = bool(self._pseudo_labels) or not uses_pseudo_labels
        self._modes = [
            [track for track in labeled if track.key and track.key.mode == mode] for mode in ("major", "minor")
        ]
        self._config = config
        self._seed = [config.optimizer.seed, *purpose]
        self._rows = range(rank, config.data.batch_size, world_size)
        self._scores: dict[Path, Segment] = {}  # a few hundred bytes each

    def __getitem__(self, step: int) -> Batch:
        """The rows of this process for one step."""
        both = bool(self._unlabeled) and bool(self._labeled) and self._has_targets
        is_labeled = step % self._config.data.unlabeled_every != 0 if both else bool(self._labeled)
        draw = (
            self._labeled_row
            if is_labeled
            else self._pseudo_labeled_row
            if self._pseudo_labels
            else self._unlabeled_row
        )
        rows = [draw(np.random.default_rng([*self._seed, step, row])) for row in self._rows]
        first, second, labels, shifts, pseudo_labels, score, styles = zip(*rows, strict=True)
        drawn = np.random.default_rng([*self._seed, step])  # the same in all processes
        frames = int(drawn.integers(self._config.shortest_frames, self._config.segment_frames + 1))
        return Batch(
            torch.from_numpy(np.stack(first)[:, :frames]),
            torch.from_numpy(np.stack(second)[:, :frames])
            if draw == self._unlabeled_row
            else torch.empty(0, dtype=torch.uint8),
            torch.tensor(labels if is_labeled else [], dtype=torch.int64),
            torch.tensor(shifts, dtype=torch.int64),
            torch.from_numpy(np.stack(pseudo_labels)) if draw == self._pseudo_labeled_row else torch.empty(0),
            *self._scored(score, styles, frames, is_labeled),
        )

    def _scored(
        self, score: Sequence[Segment], styles: Sequence[int], frames: int, is_labeled: bool
    ) -> tuple[Tensor, Tensor]:
        if not is_labeled or not self._config.has_auxiliary:
            return torch.empty(0), torch.empty(0)
        moments = frames // self._config.input.frames_averaged
        return torch.from_numpy(np.stack(score)[:, :moments]), torch.tensor(styles, dtype=torch.int64)

    def _unlabeled_row(self, rng: np.random.Generator) -> _Row:
        features = self._load(self._unlabeled[int(rng.integers(len(self._unlabeled)))])
        first, second = two_starts(len(features), self._config.segment_frames, rng)
        shifts = draw_shifts(self._spare, rng)
        # Augment each segment separately, so that the network cannot match two segments by their timbre.
        one, two = (self._segment(features, start, rng, False) for start in (first, second))
        return one, two, -1, shifts, _NO_PSEUDO_LABEL, _NO_SCORE, UNKNOWN_STYLE

    def _pseudo_labeled_row(self, rng: np.random.Generator) -> _Row:
        """A segment with a pseudo-label, shifted by up to a quarter of its length; both modes are equally likely."""
        mode = self._pseudo_labels[int(rng.integers(len(self._pseudo_labels)))]
        track, indices = mode[int(rng.integers(len(mode)))]
        assert track.pseudo_labels is not None  # noqa: S101
        index = int(rng.choice(indices))
        features = self._load(track)
        frames = self._config.segment_frames
        move = int(rng.integers(-(frames // 4), frames // 4 + 1))
        start = min(max(0, int(track.pseudo_labels.starts[index]) + move), max(0, len(features) - frames))
        segment = self._segment(features, start, rng, False)
        return (
            segment,
            segment,
            -1,
            draw_shifts(self._spare, rng),
            track.pseudo_labels.keys[index],
            _NO_SCORE,
            UNKNOWN_STYLE,
        )

    def _labeled_row(self, rng: np.random.Generator) -> _Row:
        track = self._draw_labeled(rng)
        features = self._load(track)
        start = int(rng.integers(max(1, len(features) - self._config.segment_frames + 1)))
        played, segment = self._played_segment(features, start, rng, True)
        label = track.key.index if track.key else NO_KEY_INDEX
        score = self._score(track, played) if self._config.has_auxiliary else _NO_SCORE
        return segment, segment, label, draw_shifts(self._spare, rng), _NO_PSEUDO_LABEL, score, track.style

    def _score(self, track: Track, played: npt.NDArray[np.int64]) -> Segment:
        """The score labels of a rendering at the frames of its segment, uint8 [moments, 4]."""
        path = track.features.with_suffix(SCORE)
        step = self._config.input.frames_averaged
        frames = played[: len(played) // step * step].reshape(-1, step)[:, step // 2]
        if path not in self._scores:
            self._scores[path] = np.load(path, allow_pickle=False) if path.exists() else _NO_SCORE
        score = self._scores[path]
        out = np.full((len(frames), len(COLUMNS)), UNKNOWN, dtype=np.uint8)
        seconds = frames * self._config.vqt.hop_length / self._config.vqt.sample_rate
        moments = (seconds / FRAME_SECONDS).astype(np.int64)
        inside = moments < len(score)
        out[inside] = score[moments[inside]]
        return out

    @property
    def _spare(self) -> int:
        """Number of feature bins beyond the network's input."""
        return self._config.vqt.n_bins - self._config.network.n_bins

    def _segment(self, features: Segment, start: int, rng: np.random.Generator, is_labeled: bool) -> Segment:
        return self._played_segment(features, start, rng, is_labeled)[1]

    def _played_segment(
        self, features: Segment, start: int, rng: np.random.Generator, is_labeled: bool
    ) -> tuple[npt.NDArray[np.int64], Segment]:
        """The frames of ``features`` that a segment plays, int64 [frames], and the segment."""
        frames, tempo = self._config.segment_frames, self._config.data.tempo
        steady = start + np.arange(frames)
        if len(features) < start + frames:  # a track that is shorter is repeated, as in ``cut``
            steady = start + np.arange(frames) % max(1, len(features) - start)
        if not self._config.data.augment:
            return steady, cut(features, start, frames)
        if tempo == 1.0:  # draw no random number, so that runs of older configurations stay reproducible
            segment = cut(features, start, frames)
        else:
            speed = tempo ** rng.uniform(-1.0, 1.0)
            played = np.arange(frames) * speed
            used = int(played[-1]) + 1
            start = max(0, min(start, len(features) - used))
            segment = cut(features, start, used)[played.astype(np.int64)]
            steady = start + played.astype(np.int64) % max(1, len(features) - start)
        other = None
        if is_labeled and self._unlabeled:
            donor = self._load(self._unlabeled[int(rng.integers(len(self._unlabeled)))])
            other = cut(donor, int(rng.integers(max(1, len(donor) - frames + 1))), frames)
        return steady, augmented(segment, rng, other)

    def _draw_labeled(self, rng: np.random.Generator) -> Track:
        tracks: Sequence[Track] = self._labeled
        if self._keyless and rng.random() < self._config.data.no_key_share:
            return self._keyless[int(rng.integers(len(self._keyless)))]
        if self._config.data.balance_modes and all(self._modes):
            tracks = self._modes[int(rng.integers(2))]
        return tracks[int(rng.integers(len(tracks)))]

    def _load(self, track: Track) -> Segment:
        """The track's features, memory-mapped; the file is closed with the array, so few files are open at a time."""
        return load_features(track.features, self._config.vqt.n_bins)


def _pseudo_labels_by_mode(
    tracks: Sequence[Track], config: TrainConfig
) -> list[list[tuple[Track, npt.NDArray[np.int64]]]]:
    """For each mode that occurs: the tracks with confident pseudo-labels in it, and the indices of these labels."""
    modes: list[list[tuple[Track, npt.NDArray[np.int64]]]] = [[], []]
    for track in tracks:
        if track.pseudo_labels is not None:
            confident = track.pseudo_labels.keys.max(axis=1, initial=0.0) >= config.loss.min_confidence
            minor = track.pseudo_labels.keys.argmax(axis=1) >= NO_KEY_INDEX // 2
            for mode, of_mode in zip(modes, (~minor, minor), strict=True):
                indices = np.flatnonzero(confident & of_mode)
                if len(indices):
                    mode.append((track, indices))
    return [mode for mode in modes if mode]


def two_starts(length: int, frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Starts of two segments of ``frames`` in a track of ``length``, by the rule above."""
    spare = length - 2 * frames
    if spare < 0:
        early, late = 0, max(0, length - frames)
    else:
        early, late = sorted(rng.integers(spare + 1, size=2).tolist())
        late += frames
    return (early, late) if rng.random() < 0.5 else (late, early)


def draw_shifts(spare: int, rng: np.random.Generator) -> tuple[int, int]:
    """Bins to crop for the plain and the transposed view, each 0..spare; their difference is -11..11 and not 0."""
    difference = int(rng.integers(1, min(11, spare) + 1)) * (1 if rng.random() < 0.5 else -1)
    low = int(rng.integers(spare - abs(difference) + 1))
    return (low, low + difference) if difference > 0 else (low - difference, low)


def cut(features: Segment, start: int, frames: int) -> Segment:
    """A copy of ``frames`` frames from ``start``; a track that is shorter is repeated."""
    segment = np.array(features[start : start + frames])  # a view would keep the feature file open
    return segment if len(segment) == frames else np.resize(segment, (frames, features.shape[1]))


class WaveformTracks(Dataset[Batch]):
    """Batches of waveforms from the user's data loader, in the shapes of the published code.

    ``source`` gives batches by step (``source[step]``) or one after the other (anything that can be iterated: a
    generator, an ``IterableDataset``, a ``DataLoader``), and should not end. A batch is one of

    - float32 [batch, samples, 2]: two segments of each track, without labels (``selfsupervised``);
    - (float32 [batch, samples, 1], list of key names): one segment of each, with labels (``supervised``);
    - the original's dictionary ``{"audio": waveforms, "keymode": (names,)}`` of either kind, with names of "-1" where
      there are no labels.

    Both kinds may alternate in any way (``mix``). A resumed run skips the batches that it has used: a source
    with ``source[step]`` resumes at once and exactly; an iterated one must give the same batches again.

    Args:
        source: of the batches.
        config: of the run.
    """

    def __init__(self, source: Any, config: TrainConfig) -> None:
        from stonecli_train.vqt import VQT

        self._source = source
        self._config = config
        self._vqt = VQT(config.vqt).eval()
        self._iterator: Iterator[Any] | None = None
        self._position = 0  # of the next batch of the iterator

    def _batch(self, step: int) -> Any:
        source = self._source
        if hasattr(source, "__getitem__") and not isinstance(source, IterableDataset | DataLoader):
            try:
                return source[step]
            except IndexError:
                raise DataError(f"the data loader has no batch for step {step}: {_ENDLESS}") from None
        if self._iterator is None or step < self._position:
            iterator = iter(source)
            if self._iterator is not None and iterator is self._iterator:
                raise DataError("the data loader cannot start again: give an iterable instead of an iterator")
            self._iterator, self._position = iterator, 0
        try:
            while self._position < step:
                next(self._iterator)
                self._position += 1
            self._position += 1
            return next(self._iterator)
        except StopIteration:
            raise DataError(f"the data loader ended before step {step}: {_ENDLESS}") from None

    def __getitem__(self, step: int) -> Batch:
        """The batch of one step.

        Raises:
            DataError: the batch has an invalid shape.
        """
        audio, names = _waveforms(self._batch(step))
        if audio.ndim != 3 or audio.shape[2] != (2 if names is None else 1):
            raise DataError("waveforms are [batch, samples, 2], or [batch, samples, 1] with labels")
        if names is not None and len(names) != len(audio):
            raise DataError(f"{len(names)} labels for {len(audio)} waveforms")
        if audio.shape[1] < self._config.vqt.min_samples:
            raise DataError(f"waveforms of {audio.shape[1]} samples are too short")
        spare = self._config.vqt.n_bins - self._config.network.n_bins
        rng = np.random.default_rng([self._config.optimizer.seed, step])
        segments = [self._features(audio[:, :, channel]) for channel in range(audio.shape[2])]
        try:
            labels = [Key.parse(name).index for name in names or ()]
        except ValueError as error:
            raise DataError(str(error)) from error
        return Batch(
            segments[0],
            segments[1] if names is None else torch.empty(0, dtype=torch.uint8),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor([draw_shifts(spare, rng) for _ in range(len(audio))], dtype=torch.int64),
        )

    def _features(self, audio: Tensor) -> Tensor:
        with torch.inference_mode():
            level = self._vqt(audio.float())
        scaled: Tensor = (level - level.amax(dim=(1, 2), keepdim=True) + 1.0) * 255.0
        return scaled.round().clamp(0, 255).to(torch.uint8).transpose(1, 2)


def _waveforms(item: Any) -> tuple[Tensor, Sequence[str] | None]:
    """Waveforms and labels of a source's batch."""
    if isinstance(item, dict):  # the published format: labels as a tuple of one list, "-1" for no label
        audio, (names,) = item["audio"], item["keymode"]
        return audio, names if audio.shape[-1] == 1 else None
    if isinstance(item, tuple | list):
        audio, names = item
        return audio, names
    return item, None
