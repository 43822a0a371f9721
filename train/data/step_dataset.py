"""Makes batches of feature segments from tracks; each batch depends on the number of the step only.

A batch is a function of (seed, step, row): a run resumed at step n gets the same batches, worker processes need no
state, and each of several training processes makes only its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stonecli_train.augment import augmented
from stonecli_train.config import TrainConfig
from stonecli_train.corpus.annotation import COLUMNS, FRAME_SECONDS, NO_KEY, SCORE, UNKNOWN
from stonecli_train.data.batch import NO_KEY_INDEX, Batch
from stonecli_train.data.segments import Segment, cut, draw_shifts, two_starts
from stonecli_train.data.tracks import UNKNOWN_STYLE, Track
from stonecli_train.errors import DataError
from stonecli_train.features import load_features

_Row = tuple[Segment, Segment, int, tuple[int, int], npt.NDArray[np.float32], Segment, int]

_NO_PSEUDO_LABEL = np.zeros(0, dtype=np.float32)
_NO_SCORE = np.zeros((0, len(COLUMNS)), dtype=np.uint8)


def check_tracks(unlabeled: Sequence[Track], labeled: Sequence[Track], config: TrainConfig) -> None:
    """Check that the loss can be trained on these tracks.

    Raises:
        DataError: it cannot; the message says what to do.
    """
    if config.loss.name == "cross_entropy" and all(track.keyless for track in labeled):
        raise DataError("the cross_entropy loss needs labels: add tracks with a key, for training and validation")
    if config.loss.name != "cross_entropy" and any(track.keyless for track in labeled):
        raise DataError(
            f"the {config.loss.name} loss cannot learn from tracks without a key (label {NO_KEY}): "
            "remove them, or use a --config with the cross_entropy loss (docs/training.md)"
        )


class StepDataset(Dataset[Batch]):
    """Batch number ``step`` of a run; there is no last step.

    With both kinds of tracks, one batch out of ``data.unlabeled_every`` is unlabeled, by default every second one
    ("mix" in [1] of ``stonecli_train.losses``). Tracks are drawn uniformly with replacement; with ``balance_modes``,
    the mode is drawn first.

    Args:
        unlabeled, labeled: tracks; one list may be empty.
        config: configuration of the run.
        purpose: numbers that separate the random streams of training, validation and recoveries.
        rank, world_size: rank of this process and number of processes; each makes its own rows of every batch.

    Raises:
        DataError: the loss cannot be trained on these tracks, or the batch size is not a multiple of ``world_size``.
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
            raise DataError(
                f"data.batch_size must be a multiple of the number of processes ({world_size}),"
                f" not {config.data.batch_size}"
            )
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
        self._scores: dict[Path, Segment] = {}  # cache by path, a few hundred bytes each

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
        shared_rng = np.random.default_rng([*self._seed, step])  # the same in all processes
        frames = int(shared_rng.integers(self._config.shortest_frames, self._config.segment_frames + 1))
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
        score_frames = frames // self._config.input.frames_averaged
        return torch.from_numpy(np.stack(score)[:, :score_frames]), torch.tensor(styles, dtype=torch.int64)

    def _unlabeled_row(self, rng: np.random.Generator) -> _Row:
        features = self._load(self._unlabeled[int(rng.integers(len(self._unlabeled)))])
        first, second = two_starts(len(features), self._config.segment_frames, rng)
        shifts = draw_shifts(self._spare, rng)
        # Augment each segment separately, so that the network cannot match two segments by their timbre.
        one, two = (self._segment(features, start, rng, False) for start in (first, second))
        return one, two, -1, shifts, _NO_PSEUDO_LABEL, _NO_SCORE, UNKNOWN_STYLE

    def _pseudo_labeled_row(self, rng: np.random.Generator) -> _Row:
        """A segment with a pseudo-label, at a start jittered by up to a quarter of its length; both modes are equally
        likely."""
        mode = self._pseudo_labels[int(rng.integers(len(self._pseudo_labels)))]
        track, indices = mode[int(rng.integers(len(mode)))]
        assert track.pseudo_labels is not None  # noqa: S101
        index = int(rng.choice(indices))
        features = self._load(track)
        frames = self._config.segment_frames
        jitter = int(rng.integers(-(frames // 4), frames // 4 + 1))
        start = min(max(0, int(track.pseudo_labels.starts[index]) + jitter), max(0, len(features) - frames))
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
        """The score labels of a rendering for each averaged frame of its segment, uint8 [averaged frames, 4]."""
        path = track.features.with_suffix(SCORE)
        step = self._config.input.frames_averaged
        frames = played[: len(played) // step * step].reshape(-1, step)[:, step // 2]
        if path not in self._scores:
            self._scores[path] = np.load(path, allow_pickle=False) if path.exists() else _NO_SCORE
        score = self._scores[path]
        out = np.full((len(frames), len(COLUMNS)), UNKNOWN, dtype=np.uint8)
        seconds = frames * self._config.vqt.hop_length / self._config.vqt.sample_rate
        indices = (seconds / FRAME_SECONDS).astype(np.int64)
        inside = indices < len(score)
        out[inside] = score[indices[inside]]
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
        """The indices of the frames of ``features`` that the segment consists of, int64 [frames], and the segment."""
        frames, tempo = self._config.segment_frames, self._config.data.tempo
        steady = start + np.arange(frames)
        if len(features) < start + frames:  # a track that ends earlier is repeated, as in ``cut``
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
            recording = self._load(self._unlabeled[int(rng.integers(len(self._unlabeled)))])
            other = cut(recording, int(rng.integers(max(1, len(recording) - frames + 1))), frames)
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
