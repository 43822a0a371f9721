from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stonecli_train.checkpoint import load_checkpoint
from stonecli_train.config import override
from stonecli_train.data import (
    DataError,
    with_pseudo_labels,
)
from stonecli_train.pseudo_labels import TeacherEnsemble, confirmed_by_chroma
from tests.train.fixture_types import MakeConfig, MakeTracks


class TestWithPseudoLabels:
    def test_tracks_get_pseudo_labels(self, tmp_path: Path, make_tracks: MakeTracks, tiny_config: MakeConfig) -> None:
        checkpoint = load_checkpoint(Path(__file__).resolve().parents[3] / "checkpoints" / "stone_8.pt")
        tracks = make_tracks(tmp_path / "u", 3, labeled=False, frames=700)
        said: list[str] = []
        teachers = TeacherEnsemble([checkpoint], 600, tmp_path / "cache")
        config = tiny_config("cross_entropy", loss__unlabeled="pseudo_labels", loss__min_confidence=0.0)
        found = with_pseudo_labels(tracks, teachers, config, said.append)
        assert [track.features for track in found] == [track.features for track in tracks]
        assert all(track.pseudo_labels is not None and len(track.pseudo_labels.starts) == 1 for track in found)
        assert said == ["3 recordings: the teachers are confident of 3 of 3 segments"]
        with pytest.raises(DataError, match="not confident of any key"):
            with_pseudo_labels(tracks, teachers, override(config, loss__min_confidence=0.99))
        strict = override(config, loss__chroma_agrees=True)
        agreed = with_pseudo_labels(tracks, teachers, strict)
        assert [len(track.pseudo_labels.starts) for track in agreed if track.pseudo_labels] == [
            len(
                confirmed_by_chroma(
                    track.pseudo_labels, np.load(track.features), strict.segment_frames, strict.network.n_bins
                ).starts
            )
            for track in found
            if track.pseudo_labels
        ]
