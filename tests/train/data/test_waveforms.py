from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

from stonecli.key import Key
from stonecli_train.data import (
    DataError,
    WaveformTracks,
)
from stonecli_train.vqt import VQT, VQTConfig
from tests.train.data.batches import RATE, same
from tests.train.fixture_types import MakeConfig


def waveforms(batch: int, channels: int, seconds: float = 1.5) -> Any:
    return torch.randn(batch, round(seconds * RATE), channels, generator=torch.Generator().manual_seed(channels))


class TestShapes:
    def test_pairs_of_waveforms(self, tiny_config: MakeConfig) -> None:
        audio = waveforms(4, 2)
        batch = WaveformTracks([audio], tiny_config())[0]
        assert not batch.is_labeled
        assert batch.first.shape == batch.second.shape == (4, tiny_config().segment_frames, 99)
        for features, channel in ((batch.first, 0), (batch.second, 1)):
            level = VQT(VQTConfig())(audio[:, :, channel]).transpose(1, 2)
            level = level - level.amax(dim=(1, 2), keepdim=True) + 1
            assert (features.float() / 255 - level).abs().max() <= 0.5 / 255 + 1e-5
        assert ((batch.shifts >= 0) & (batch.shifts <= 15)).all()
        assert (batch.shifts[:, 0] != batch.shifts[:, 1]).all()
        assert same(batch, WaveformTracks([audio], tiny_config())[0])

    def test_waveforms_with_labels(self, tiny_config: MakeConfig) -> None:
        batch = WaveformTracks([(waveforms(2, 1), ["A minor", "Db major"])], tiny_config("semi_tone"))[0]
        assert batch.labels.tolist() == [Key(9, "minor").index, Key(1, "major").index]
        assert (len(batch.first), len(batch.second)) == (2, 0)

    def test_the_originals_dictionaries(self, tiny_config: MakeConfig) -> None:
        source = [
            {"audio": waveforms(2, 1), "keymode": (["A minor", "C# major"],)},
            {"audio": waveforms(2, 2), "keymode": (["-1", "-1"],)},
        ]
        dataset = WaveformTracks(source, tiny_config("semi_tone"))
        assert dataset[0].labels.tolist() == [21, 1]
        assert not dataset[1].is_labeled

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            (waveforms(2, 1), r"\[batch, samples, 2\], or"),
            (waveforms(2, 3), r"\[batch, samples, 2\], or"),
            (waveforms(2, 2)[:, :, 0], r"\[batch, samples, 2\], or"),
            ((waveforms(2, 2), ["C", "D"]), r"\[batch, samples, 1\] with labels"),
            ((waveforms(2, 1), ["C"]), "1 labels for 2 waveforms"),
            ((waveforms(1, 1), ["H"]), "not a key: 'H'"),
            (waveforms(2, 2, 0.1), "too short"),
        ],
    )
    def test_other_waveforms_are_refused(self, item: Any, message: str, tiny_config: MakeConfig) -> None:
        with pytest.raises(DataError, match=message):
            WaveformTracks([item], tiny_config())[0]

    def test_waveforms_can_be_pickled_for_workers(self, tiny_config: MakeConfig) -> None:
        dataset = WaveformTracks([waveforms(2, 2)], tiny_config())
        assert same(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


def original_batch(number: int, kind: str) -> dict[str, Any]:
    """A batch as the original's data loader gives it."""
    kind = ("supervised", "selfsupervised")[number % 2] if kind == "mix" else kind
    channels = 1 if kind == "supervised" else 2
    audio = torch.randn(2, 33075, channels, generator=torch.Generator().manual_seed(number))
    names = ["A minor", "Bb major"] if kind == "supervised" else ["-1", "-1"]
    return {"audio": audio, "keymode": (names,)}


class Loader(IterableDataset[dict[str, Any]]):
    """An endless data loader like the original's."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __iter__(self) -> Any:
        return (original_batch(number, self.kind) for number in itertools.count())


class TestDataLoaders:
    @pytest.mark.parametrize("kind", ["supervised", "selfsupervised", "mix"])
    def test_the_originals_data_loaders(self, kind: str, tiny_config: Any) -> None:
        config = tiny_config("semi_tone")
        tracks = WaveformTracks(Loader(kind), config)
        labeled = [tracks[step].is_labeled for step in range(4)]
        assert labeled == {"supervised": [True] * 4, "selfsupervised": [False] * 4, "mix": [True, False] * 2}[kind]
        batch = tracks[4]
        assert batch.first.shape == (2, 65, 99)
        if batch.is_labeled:
            assert [Key.from_index(index).name for index in batch.labels.tolist()] == ["A minor", "Bb major"]
        else:
            assert batch.second.shape == batch.first.shape
            assert not torch.equal(batch.first, batch.second)

    @pytest.mark.parametrize("wrap", ["dataset", "loader", "list", "generator"])
    def test_every_source_gives_the_same_batch_of_a_step(self, wrap: str, tiny_config: Any) -> None:
        """Also a later step at once, as where a run is resumed, and an earlier one, as in every validation."""
        config = tiny_config("semi_tone")
        source: Any = {
            "dataset": lambda: Loader("mix"),
            "loader": lambda: torch.utils.data.DataLoader(Loader("mix"), batch_size=None),
            "list": lambda: [original_batch(number, "mix") for number in range(6)],
            "generator": lambda: iter(Loader("mix")),
        }[wrap]()
        expected = [WaveformTracks([original_batch(step, "mix")] * 6, config)[step].first for step in range(6)]
        tracks = WaveformTracks(source, config)
        assert torch.equal(tracks[3].first, expected[3])
        assert torch.equal(tracks[4].first, expected[4])
        if wrap == "generator":
            with pytest.raises(DataError, match="return an iterable"):
                tracks[0]
        else:
            assert torch.equal(tracks[0].first, expected[0])

    def test_a_data_loader_that_ends(self, tiny_config: Any) -> None:
        def source() -> Any:
            yield original_batch(0, "supervised")

        tracks = WaveformTracks(source(), tiny_config("semi_tone"))
        tracks[0]
        with pytest.raises(DataError, match="ended before step 1"):
            tracks[1]

    def test_a_list_of_batches_that_is_too_short_is_an_error(self, tiny_config: MakeConfig) -> None:
        with pytest.raises(DataError, match="no batch for step 0"):
            WaveformTracks([], tiny_config())[0]
