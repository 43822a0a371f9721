"""Pseudo-labels of unlabeled recordings: the predictions of trained networks, made before training starts.

Self-training (Xie et al., *Self-training with Noisy Student improves ImageNet classification*, CVPR 2020): several
teachers, each applied to several transpositions of a segment and of its neighbors, are more accurate than a student
that is trained on one augmented segment (``stonecli_train.augment``). A fixed teacher does not drift with the student,
unlike the mean teacher of ``stonecli_train.views``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stonecli.detection.pooling import pooled_posterior, recording_probabilities
from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli_train.checkpoint import Checkpoint
from stonecli_train.chromanet import BINS_PER_OCTAVE, average_frames
from stonecli_train.features import save_atomically

TRANSPOSITIONS = (0, 4, 8, 12)  # semitones down; 15 are possible with the default features
STEP_SECONDS = 12.0  # from one segment to the next
NEIGHBORS = (0.5, 1.0, 0.5)  # weights of a segment and its neighbors: modulations are rarer than errors
MAX_SEGMENTS = 60  # maximum number of segments per recording, evenly spaced
KEYS = 24
LOWEST_PITCH_CLASS = 9  # pitch class of the lowest bin: A
RELATIVE_SEMITONES = 3  # from a minor tonic to that of its relative major
MIN_SIGNATURE = 0.6  # minimum probability of the likeliest key signature for a pseudo-label to be confirmed
MIN_DIFFERENCE = 0.05  # minimum log-energy difference between the two tonics for the chroma to decide
RULE_SLOPE = 6.0  # slope of the logistic function from that difference to the probability of minor

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Pseudo-labels of the segments of one recording.

    Attributes:
        starts: int64 [n], first frame of each segment in its features.
        keys: float32 [n, 24], probabilities by ``Key.index``.
    """

    starts: npt.NDArray[np.int64]
    keys: Floats


class TeacherEnsemble:
    """An ensemble of trained networks.

    Args:
        checkpoints: models of 24 keys with class names, all for the same features.
        frames: number of VQT frames in a segment.
        folder: cache of the predictions; a file name depends on the recording, the networks and the segment length.

    Raises:
        StoneError: a checkpoint does not predict keys, or the checkpoints were trained on different features.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], frames: int, folder: Path) -> None:
        if not checkpoints:
            raise StoneError("there are no teacher checkpoints")
        first = checkpoints[0]
        for each in checkpoints:
            if each.classes is None or each.chromanet.rows != 2:
                raise StoneError("a teacher must be a model of 24 keys that was trained with labels (ks_mode)")
            if (each.vqt, each.corrects_tuning) != (first.vqt, first.corrects_tuning):
                raise StoneError("the teachers were trained on different features")
            if each.chromanet.n_bins + max(TRANSPOSITIONS) > each.vqt.n_bins:
                raise StoneError(
                    f"a teacher's features have too few bins: {each.chromanet.n_bins} and {max(TRANSPOSITIONS)}"
                    f" for transpositions are needed, not {each.vqt.n_bins}"
                )
        self.checkpoints = tuple(checkpoints)
        self._networks = [each.network() for each in checkpoints]
        self._orders = [[Key.parse(name).index for name in each.classes or ()] for each in checkpoints]
        self._frames = max(frames, *(each.chromanet.min_frames * each.frames_averaged for each in checkpoints))
        self._folder = folder
        digest = hashlib.sha256(repr((self._frames, TRANSPOSITIONS, STEP_SECONDS, NEIGHBORS, MAX_SEGMENTS)).encode())
        for each in checkpoints:
            for name, tensor in each.weights.items():
                digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
            calibration = (each.posterior_exponent, each.exponent_per_doubling, each.major_prior_odds)
            digest.update(repr((each.chromanet, *calibration)).encode())
        self._digest = digest.hexdigest()

    def pseudo_labels(self, features: Path) -> PseudoLabels:
        """Pseudo-labels for the recording whose features are at ``features``, from the cache if possible.

        Raises:
            OSError: the features cannot be read, or the predictions cannot be written.
        """
        name = hashlib.sha256(f"{features.resolve()} {features.stat().st_mtime_ns} {self._digest}".encode())
        entry = self._folder / f"{name.hexdigest()[:32]}.npy"
        try:
            rows: Floats = np.load(entry, allow_pickle=False)
            if rows.ndim == 2 and rows.shape[1] == KEYS + 1 and rows.dtype == np.float32:
                return PseudoLabels(rows[:, 0].astype(np.int64), rows[:, 1:])
        except (OSError, ValueError, EOFError):  # missing or truncated
            pass
        found = self._predict_segments(np.load(features, mmap_mode="r", allow_pickle=False))
        save_atomically(entry, np.column_stack([found.starts, found.keys]).astype(np.float32))
        return found

    def _predict_segments(self, features: npt.NDArray[np.uint8]) -> PseudoLabels:
        """Pseudo-labels for features, uint8 [frames, bins]; empty if they are shorter than a segment."""
        config = self.checkpoints[0].vqt
        last = len(features) - self._frames
        if last < 0:
            return PseudoLabels(np.zeros(0, dtype=np.int64), np.zeros((0, KEYS), dtype=np.float32))
        step = STEP_SECONDS * config.sample_rate / config.hop_length
        count = min(MAX_SEGMENTS, int(last / step) + 1)
        starts = np.unique(np.linspace(0, last, count).astype(np.int64))
        predicted = np.stack([self._predict(np.asarray(features[start : start + self._frames])) for start in starts])
        padded = np.pad(predicted, ((1, 1), (0, 0), (0, 0)), mode="edge")
        seconds = self._frames * config.hop_length / config.sample_rate
        keys = np.empty((len(starts), KEYS), dtype=np.float32)
        for index in range(len(starts)):
            neighbors = padded[index : index + len(NEIGHBORS)]
            mean = pooled_posterior(neighbors.reshape(-1, KEYS), np.repeat(NEIGHBORS, predicted.shape[1]))
            keys[index] = np.mean(
                [recording_probabilities(mean, seconds, each) for each in self.checkpoints], axis=0, dtype=np.float32
            )
        return PseudoLabels(starts, keys)

    def _predict(self, segment: npt.NDArray[np.uint8]) -> Floats:
        """Probabilities by ``Key.index`` of each teacher for each transposition, float32 [predictions, 24]."""
        level = torch.from_numpy(segment.astype(np.float32)).T / 255.0
        predictions = []
        for checkpoint, network, order in zip(self.checkpoints, self._networks, self._orders, strict=True):
            averaged = average_frames(level, checkpoint.frames_averaged)
            bins = checkpoint.chromanet.n_bins
            with torch.inference_mode():
                predicted = network(
                    torch.stack([averaged[None, shift : shift + bins] for shift in TRANSPOSITIONS])
                ).numpy()
            for probabilities, shift in zip(predicted, TRANSPOSITIONS, strict=True):
                by_index = np.empty(KEYS, dtype=np.float32)
                by_index[[_transposed(index, shift) for index in order]] = probabilities
                predictions.append(by_index)
        return np.stack(predictions)


def confirmed_by_chroma(
    pseudo_labels: PseudoLabels, features: npt.NDArray[np.uint8], frames: int, bins: int
) -> PseudoLabels:
    """The pseudo-labels whose mode the chroma confirms: the two estimators make different errors.

    The chroma rule is that of S-KEY (Kong et al., 2025, ``stonecli_train.losses``): the tonic is that pitch class, of
    the two tonics of the likeliest signature, which has more energy. On 264 recordings, the teachers had the right mode
    in 89 % of all cases, and in 92 % of those in which the rule agreed. A segment is dropped if the rule gives the
    other mode or is undecided, or if the teachers are not confident of the signature. A pseudo-label that is confirmed
    keeps only the two keys of the likeliest signature, with the teachers' probability of the signature as their sum, so
    less confident labels have less weight. The share of the minor key is the mean of the teachers' and the rule's.

    Args:
        pseudo_labels: pseudo-labels of a recording.
        features: features of the recording, uint8 [frames, bins].
        frames: number of frames in a segment.
        bins: number of bins to use, from the lowest; a multiple of 12.
    """
    starts, keys = [], []
    for start, probabilities in zip(pseudo_labels.starts.tolist(), pseudo_labels.keys, strict=True):
        minors = np.roll(probabilities[BINS_PER_OCTAVE:], RELATIVE_SEMITONES)  # below their relative majors
        signatures = probabilities[:BINS_PER_OCTAVE] + minors
        major = int(signatures.argmax())
        minor = (major - RELATIVE_SEMITONES) % BINS_PER_OCTAVE
        energies = _chroma(features[start : start + frames, :bins])
        rule = float(np.log(energies[minor] / energies[major]))
        predicted = float(minors[major] / signatures[major])
        if signatures[major] < MIN_SIGNATURE or (predicted > 0.5) != (rule > 0.0) or abs(rule) < MIN_DIFFERENCE:
            continue
        share = 0.5 * predicted + 0.5 / (1.0 + float(np.exp(-RULE_SLOPE * rule)))
        kept = np.zeros(KEYS, dtype=np.float32)
        kept[[major, BINS_PER_OCTAVE + minor]] = signatures[major] * np.array([1.0 - share, share])
        starts.append(start)
        keys.append(kept)
    return PseudoLabels(np.array(starts, dtype=np.int64), np.array(keys, dtype=np.float32).reshape(-1, KEYS))


def _chroma(segment: npt.NDArray[np.uint8]) -> Floats:
    """Mean square root of the magnitude of each pitch class, float32 [12] from C."""
    magnitudes = 10.0 ** ((segment.astype(np.float32) / 255.0 - 1.0) * 4.0)
    octaves = magnitudes.mean(axis=0).reshape(-1, BINS_PER_OCTAVE)
    chroma: Floats = np.roll(octaves.mean(axis=0), LOWEST_PITCH_CLASS)
    return chroma


def _transposed(index: int, semitones: int) -> int:
    """``Key.index`` of the key ``semitones`` higher; cropping bins from below transposes down."""
    return (index + semitones) % BINS_PER_OCTAVE + index // BINS_PER_OCTAVE * BINS_PER_OCTAVE
