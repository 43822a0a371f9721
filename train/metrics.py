"""Scores of a network on labeled tracks during training, by the metrics of ``stonecli.evaluation.metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from stonecli.evaluation.metrics import confusion_matrix, scores
from stonecli.key import Key
from stonecli_train.chromanet import ChromaNet
from stonecli_train.config import TrainConfig
from stonecli_train.data import Track, cut
from stonecli_train.views import class_names, network_input

MAX_WINDOWS = 16  # per track, evenly spaced
MAX_TRACKS = 300  # per epoch; scoring thousands of tracks took a third of the training time


@dataclass(frozen=True)
class Scores:
    """Scores over tracks, each 0..1, and the confusion matrix.

    Attributes:
        mirex: MIREX weighted score; for 12 classes, every prediction counts as the major key.
        accuracy: share of keys that are right; the same applies.
        signature: share of key signatures that are right.
        ksea: (right + fifths / 2) / all on key signatures.
        confusion: int [24, 25], see ``stonecli.evaluation.metrics.confusion_matrix``.
        tracks: number of scored tracks.
    """

    mirex: float
    accuracy: float
    signature: float
    ksea: float
    confusion: npt.NDArray[np.int64]
    tracks: int


def score_network(network: ChromaNet, tracks: Sequence[Track], config: TrainConfig, device: torch.device) -> Scores:
    """Scores of the mean prediction over windows spread over each track.

    At most MAX_TRACKS tracks with a key are scored, always the same ones.

    Args:
        network: the network, in evaluation mode and on ``device``.
        tracks: validation tracks; those without a key are ignored.
        config: configuration of the run.
        device: device of the network.
    """
    keys = [Key.parse(name.split("/")[0]) for name in class_names(config)]
    truth, predictions = [], []
    known = [(track, track.key) for track in tracks if track.key is not None]
    for index in np.linspace(0, max(0, len(known) - 1), min(len(known), MAX_TRACKS)).astype(int):
        track, key = known[index]
        truth.append(key.index)
        predictions.append(keys[int(track_profile(network, track, config, device).argmax())].index)
    reference, estimate = np.array(truth), np.array(predictions)
    values = scores(reference, estimate)
    return Scores(
        mirex=values["mirex"],
        accuracy=values["accuracy"],
        signature=values["signature"],
        ksea=values["ksea"],
        confusion=confusion_matrix(reference, estimate),
        tracks=len(truth),
    )


def track_profile(
    network: ChromaNet, track: Track, config: TrainConfig, device: torch.device
) -> npt.NDArray[np.float32]:
    """Mean KSP of a track over windows without overlap, float32 [classes]; at most MAX_WINDOWS of them."""
    features = np.load(track.features, mmap_mode="r", allow_pickle=False)
    frames = config.segment_frames
    count = min(MAX_WINDOWS, max(1, len(features) // frames))
    starts = np.linspace(0, max(0, len(features) - frames), count).astype(int)
    windows = torch.from_numpy(np.stack([cut(features, int(start), frames) for start in starts])).to(device)
    with torch.inference_mode():
        profile = network(network_input(windows, torch.zeros(count, dtype=torch.int64, device=device), config))
    mean: npt.NDArray[np.float32] = profile.mean(dim=0).cpu().numpy()
    return mean
