"""Caches the log-VQT of tracks on disk as uint8, so that each track is decoded only once.

A value of 255 is the level of the track's loudest bin, 0 is 80 dB below it. The absolute level of the track is lost,
but the first normalization of the network removes it anyway. One second of music takes 4.2 kB.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr
import torch

from stonecli.audio.channels import Samples
from stonecli.audio.decode import read_audio
from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.errors import AudioError
from stonecli.util.atomic_file import atomic_file
from stonecli_train.errors import named
from stonecli_train.vqt import BLOCK, VQT, VQTConfig

FORMAT_VERSION = 1
MAX_SECONDS = 1800.0  # maximum length of a track; the rest is not used in training
CHUNK_SECONDS = 60.0  # audio that is transformed at once

Features = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FeatureCache:
    """A folder with the features of recordings, each computed once.

    The name of an entry depends on the path, size and modification time of the file and on the transform, so a changed
    file gets a new entry. Entries are written atomically, so an interrupted run leaves no partial ones.

    Attributes:
        folder: the folder; created if missing.
        vqt: the transform.
        corrects_tuning: whether tracks are resampled to A = 440 Hz first.
    """

    folder: Path
    vqt: VQTConfig
    corrects_tuning: bool = False

    def entry(self, path: Path) -> Path:
        """The path of the cache file for the recording at ``path``; the file may not exist yet.

        Raises:
            OSError: the recording does not exist.
        """
        status = path.stat()
        identity = (FORMAT_VERSION, str(path.resolve()), status.st_size, status.st_mtime_ns)
        text = repr((identity, astuple(self.vqt), self.corrects_tuning))
        return self.folder / f"{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npy"

    def features(self, path: Path) -> Path:
        """The path of the recording's features, uint8 [frames, bins], computed if missing or damaged.

        A .npy file with features (from ``stonecli_train.corpus.render``) is its own cache file.

        Raises:
            AudioError: the recording cannot be decoded or is silent, or a .npy file does not contain features.
            OSError: the recording cannot be read, or the cache cannot be written.
        """
        if path.suffix == ".npy":
            load_features(path, self.vqt.n_bins)
            return path
        entry = self.entry(path)
        if not _is_valid(entry, self.vqt.n_bins):
            save_atomically(
                entry, track_features(read_track(path, self.vqt.sample_rate), self.vqt, self.corrects_tuning)
            )
        return entry


def load_features(path: Path, bins: int) -> Features:
    """The features at ``path``, uint8 [frames, ``bins``], at least one frame, memory-mapped.

    Raises:
        AudioError: the file does not contain such features; ``filename`` is the file.
        OSError: the file cannot be read.
    """
    with named(path):
        try:
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:  # not a .npy file, or truncated
            raise AudioError(f"not features of {bins} bins: not a readable .npy file") from error
        if features.dtype != np.uint8 or features.ndim != 2 or not len(features) or features.shape[1] != bins:
            raise AudioError(
                f"not features of {bins} bins: must be uint8 [frames, {bins}], not {features.dtype}"
                f" {list(features.shape)}"
            )
    valid: Features = features
    return valid


def _is_valid(entry: Path, bins: int) -> bool:
    try:
        load_features(entry, bins)
    except (OSError, AudioError):  # missing, or truncated by a system crash
        return False
    return True


def read_track(path: Path, sample_rate: int) -> Samples:
    """The first MAX_SECONDS of a recording, mono float32 [samples]; errors as ``stonecli.audio.decode.read_audio``."""
    blocks, length = [], 0
    for block in read_audio(path, sample_rate):
        blocks.append(block)
        length += len(block)
        if length >= MAX_SECONDS * sample_rate:
            break
    if not blocks:
        raise AudioError("the file contains no audio")
    return np.concatenate(blocks)


def track_features(samples: Samples, config: VQTConfig, corrects_tuning: bool) -> Features:
    """Log-VQT of a whole track, uint8 [frames, bins]: 255 is its loudest bin, 0 is 80 dB below.

    Raises:
        AudioError: the track is silent.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-4:
        raise AudioError("silent")
    samples = samples / np.float32(peak)
    if corrects_tuning:
        cents = cents_of(frame_peaks(samples, config.sample_rate).resultant) or 0.0
        if abs(cents) >= 0.5:
            rate = config.sample_rate * 2.0 ** (cents / 1200.0)
            samples = soxr.resample(samples, config.sample_rate, rate, quality="MQ")
    level = np.concatenate(list(_levels(samples, config)))  # float32 [frames, bins]
    scaled: Features = np.clip(np.rint((level - (level.max() - 1.0)) * 255.0), 0, 255).astype(np.uint8)
    return scaled


def _levels(samples: Samples, config: VQTConfig) -> list[npt.NDArray[np.float32]]:
    """Log-VQT of the track in chunks, float32 [frames, bins] each; a margin around each covers the longest kernel."""
    hop = config.hop_length
    chunk = int(CHUNK_SECONDS * config.sample_rate) // hop * hop
    margin = -(-(BLOCK << (config.octaves - 1)) // hop) * hop  # samples that the lowest octave's kernels span
    transform = _transform(config)
    parts = []
    for start in range(0, len(samples), chunk):
        before = min(start, margin)
        padded = samples[start - before : start + chunk + margin]
        if len(padded) < margin:  # a short remainder; reflection at the edge needs more samples
            padded = np.pad(padded, (0, margin - len(padded)))
        with torch.inference_mode():
            magnitude = transform.magnitude(torch.from_numpy(np.ascontiguousarray(padded))[None])[0].numpy().T
        frames = min(chunk, len(samples) - start) // hop + (start + chunk >= len(samples))
        level = 10.0 * np.log10(np.maximum(magnitude, 1e-10)) / 80.0 + 1.0
        parts.append(level[before // hop : before // hop + frames].astype(np.float32))
    return parts


@cache
def _transform(config: VQTConfig) -> VQT:
    return VQT(config).eval()


def save_atomically(path: Path, array: npt.NDArray[Any]) -> None:
    """Write ``array`` to a .npy file atomically; creates the folder if it is missing.

    Raises:
        OSError: the file cannot be written; an older file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable=True) as temporary, temporary.open("wb") as file:
        np.save(file, array)
