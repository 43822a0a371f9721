"""Adds the pseudo-labels of teachers to unlabeled tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stonecli_train.config import TrainConfig
from stonecli_train.data.tracks import Report, Track
from stonecli_train.errors import DataError
from stonecli_train.features import load_features
from stonecli_train.pseudo_labels import TeacherEnsemble, confirmed_by_chroma

_REPORT_EVERY = 100  # recordings


def with_pseudo_labels(
    tracks: Sequence[Track], teachers: TeacherEnsemble, config: TrainConfig, report: Report = print
) -> list[Track]:
    """Copies of the unlabeled tracks with the pseudo-labels of the teachers.

    Args:
        tracks: unlabeled tracks.
        teachers: the ensemble of teachers.
        config: with ``loss.chroma_agrees``, only pseudo-labels that the chroma confirms are kept.
        report: called with messages about the progress and the result.

    Raises:
        DataError: no pseudo-label has at least ``loss.min_confidence``.
        OSError: features cannot be read, or pseudo-labels cannot be written.
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
