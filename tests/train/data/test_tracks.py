from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stonecli.key import Key
from stonecli_train.data import (
    DataError,
    collect_tracks,
)
from stonecli_train.features import FeatureCache
from stonecli_train.vqt import VQTConfig
from tests.train.data.batches import RATE


def tone(path: Path, note: int, seconds: float = 2.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440.0 * 2 ** ((note - 69) / 12) * time), RATE)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", VQTConfig())


class TestCollectTracks:
    def test_unreadable_files_are_reported_and_skipped(self, cache: FeatureCache, tmp_path: Path) -> None:
        music = tmp_path / "music"
        tone(music / "good.wav", 60)
        (music / "text.mp3").write_text("no music")
        (music / "empty.flac").touch()
        soundfile.write(music / "silent.wav", np.zeros(RATE), RATE)
        (music / "gone.wav").symlink_to(music / "nowhere.wav")
        said: list[str] = []
        unlabeled, labeled = collect_tracks(music, None, cache, said.append)
        assert (len(unlabeled), labeled) == (1, [])
        assert np.load(unlabeled[0].features).shape == (2 * RATE // 512 + 1, 99)
        assert sorted(Path(line.split(": ")[0]).name for line in said) == [
            "empty.flac",
            "gone.wav",
            "silent.wav",
            "text.mp3",
        ]
        assert any(line.endswith("silent.wav: silent") for line in said)

    def test_an_unreadable_labeled_file_is_reported(self, cache: FeatureCache, tmp_path: Path) -> None:
        tone(tmp_path / "a.wav", 60)
        (tmp_path / "b.wav").write_text("no music")
        (tmp_path / "labels.csv").write_text("path,key\na.wav,C\nb.wav,D\n")
        said: list[str] = []
        unlabeled, labeled = collect_tracks(None, tmp_path / "labels.csv", cache, said.append)
        assert (unlabeled, [track.key for track in labeled]) == ([], [Key(0, "major")])
        assert len(said) == 1
        assert "b.wav" in said[0]

    def test_a_labeled_file_is_not_used_unlabeled(self, cache: FeatureCache, tmp_path: Path) -> None:
        music = tmp_path / "music"
        for number in range(4):
            tone(music / f"{number}.wav", 60 + number)
        (tmp_path / "link").symlink_to(music)
        (tmp_path / "labels.csv").write_text("path,key\nlink/1.wav,C\nmusic/3.wav,Am\n")
        unlabeled, labeled = collect_tracks(music, tmp_path / "labels.csv", cache, pytest.fail)
        assert [track.key for track in labeled] == [Key(0, "major"), Key(9, "minor")]
        assert [track.features for track in unlabeled] == [cache.entry(music / "0.wav"), cache.entry(music / "2.wav")]

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_folder_without_audio_is_an_error(self, exists: bool, cache: FeatureCache, tmp_path: Path) -> None:
        folder = tmp_path / "music"
        if exists:
            folder.mkdir()
            (folder / "cover.jpg").touch()
        with pytest.raises(DataError, match=r"no audio to train on in .*music"):
            collect_tracks(folder, None, cache, lambda _: None)
