from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from stonecli.key import Key
from stonecli_train.data import (
    NO_KEY_INDEX,
    Batch,
    DataError,
    StepDataset,
    Track,
)
from stonecli_train.pseudo_labels import PseudoLabels
from tests.train.data.batches import same
from tests.train.fixture_types import MakeConfig, MakeTracks


@pytest.fixture
def datasets(tmp_path: Path, make_tracks: MakeTracks, tiny_config: MakeConfig) -> Callable[..., StepDataset]:
    """Makes a dataset: ``datasets("mixed", loss="semi_tone", rank=0, data__batch_size=4)``."""
    unlabeled = make_tracks(tmp_path / "u", 7, labeled=False, frames=300)
    labeled = make_tracks(tmp_path / "l", 24, labeled=True, frames=200, seed=100)

    def make(
        kind: str = "unlabeled",
        loss: str = "semi_tone",
        purpose: tuple[int, ...] = (1,),
        rank: int = 0,
        count: int = 1,
        **changes: Any,
    ) -> StepDataset:
        tracks = ([] if kind == "labeled" else unlabeled, [] if kind == "unlabeled" else labeled)
        return StepDataset(*tracks, tiny_config(loss, **changes), purpose, rank, count)

    return make


class TestBatches:
    def test_shapes(self, datasets: Any, tiny_config: MakeConfig) -> None:
        frames = tiny_config().segment_frames
        batch = datasets("unlabeled")[0]
        assert not batch.is_labeled
        assert (batch.first.shape, batch.second.shape) == ((8, frames, 99), (8, frames, 99))
        assert (batch.first.dtype, batch.labels.shape, batch.shifts.shape) == (torch.uint8, (0,), (8, 2))
        batch = datasets("labeled")[0]
        assert batch.is_labeled
        assert (batch.first.shape, len(batch.second), batch.labels.shape) == ((8, frames, 99), 0, (8,))

    def test_a_batch_is_a_function_of_seed_purpose_step_and_row(self, datasets: Any) -> None:
        batch = datasets()[3]
        assert same(batch, datasets()[3])
        dataset = datasets()
        for step in (9, 0, 5):
            dataset[step]
        assert same(batch, dataset[3])  # independent of the earlier batches
        for other in (
            datasets()[4],
            datasets(purpose=(2,))[3],
            datasets(purpose=(1, 1))[3],
            datasets(optimizer__seed=1)[3],
        ):
            assert not same(batch, other)
        half = datasets(data__batch_size=4)[3]
        assert torch.equal(batch.first[:4], half.first)

    @pytest.mark.parametrize("kind", ["unlabeled", "labeled"])
    @pytest.mark.parametrize("count", [2, 4])
    def test_ranks_share_out_the_rows_of_one_process(self, kind: str, count: int, datasets: Any) -> None:
        whole = datasets(kind)[5]
        for rank in range(count):
            part = datasets(kind, rank=rank, count=count)[5]
            expected = (
                whole.first[rank::count],
                whole.second[rank::count],
                whole.labels[rank::count],
                whole.shifts[rank::count],
            )
            assert same(part, Batch(*expected))

    @pytest.mark.parametrize("kind", ["unlabeled", "labeled"])
    def test_batches_of_many_lengths(self, kind: str, datasets: Any, tiny_config: MakeConfig) -> None:
        config = tiny_config(input__shortest_seconds=1.0)
        dataset, whole = datasets(kind, input__shortest_seconds=1.0), datasets(kind)
        lengths = set()
        for step in range(60):
            batch, uncut = dataset[step], whole[step]
            frames = batch.first.shape[1]
            lengths.add(frames)
            assert torch.equal(batch.first, uncut.first[:, :frames])
            if kind == "unlabeled":
                assert torch.equal(batch.second, uncut.second[:, :frames])
            other_process = datasets(kind, rank=1, count=2, input__shortest_seconds=1.0)[step]
            assert torch.equal(other_process.first, batch.first[1::2])
        assert config.shortest_frames <= min(lengths) < max(lengths) <= config.segment_frames
        assert len(lengths) > 10

    def test_a_batch_size_must_be_divisible(self, datasets: Any) -> None:
        with pytest.raises(DataError, match=r"must be a multiple of the number of processes \(3\), not 8"):
            datasets(count=3)

    def test_labeled_and_unlabeled_batches_alternate(self, datasets: Any) -> None:
        dataset = datasets("mixed")
        kinds = [dataset[step].is_labeled for step in range(6)]
        assert kinds in ([False, True] * 3, [True, False] * 3)
        assert not any(datasets("unlabeled")[step].is_labeled for step in range(3))
        assert all(datasets("labeled")[step].is_labeled for step in range(3))

    def test_segments_come_from_the_tracks_with_their_labels(self, datasets: Any, tmp_path: Path) -> None:
        stored = [np.load(tmp_path / "l" / f"{number}.npy") for number in range(24)]
        keys = [Key.from_index(7 * number % 24).index for number in range(24)]
        batch = datasets("labeled", data__batch_size=64)[0]
        frames = batch.first.shape[1]
        seen = set()
        for segment, label in zip(batch.first.numpy(), batch.labels.tolist(), strict=True):
            track = stored[keys.index(label)]
            starts = [
                start for start in range(len(track) - frames + 1) if (track[start : start + frames] == segment).all()
            ]
            assert len(starts) == 1
            seen.add(starts[0])
        assert len(seen) > 20
        assert len(set(batch.labels.tolist())) > 15

    def test_the_segments_of_a_pair_come_from_one_track(self, datasets: Any, tmp_path: Path) -> None:
        stored = [np.load(tmp_path / "u" / f"{number}.npy") for number in range(7)]

        def places(segment: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
            return [
                (number, start)
                for number, track in enumerate(stored)
                for start in range(len(track) - len(segment) + 1)
                if (track[start : start + len(segment)] == segment).all()
            ]

        batch = datasets()[0]
        for first, second in zip(batch.first.numpy(), batch.second.numpy(), strict=True):
            ((track, start),), ((other_track, other_start),) = places(first), places(second)
            assert track == other_track
            assert abs(start - other_start) >= len(first)

    def test_unlabeled_batches_can_be_rare(self, datasets: Any) -> None:
        few = datasets("mixed", data__unlabeled_every=4)
        assert [few[step].is_labeled for step in range(9)] == [False, True, True, True] * 2 + [False]

    def test_a_short_track_is_repeated(self, make_tracks: MakeTracks, tiny_config: MakeConfig, tmp_path: Path) -> None:
        tracks = make_tracks(tmp_path, 1, labeled=False, frames=50)
        batch = StepDataset(tracks, [], tiny_config(), (1,))[0]
        np.testing.assert_array_equal(
            batch.first[0].numpy(), np.resize(np.load(tracks[0].features), batch.first[0].shape)
        )


class TestKeys:
    def test_modes_can_be_balanced(self, make_tracks: MakeTracks, tiny_config: MakeConfig, tmp_path: Path) -> None:
        tracks = make_tracks(tmp_path, 24, labeled=True, frames=140)
        few = [track for track in tracks if track.key and (track.key.mode == "major" or track.key.tonic == 0)]

        def minors(balance: bool) -> float:
            config = tiny_config("semi_tone", data__batch_size=200, data__balance_modes=balance)
            return float((StepDataset([], few, config, (1,))[0].labels >= 12).float().mean())

        assert minors(balance=False) < 0.2  # 1 of 13
        assert 0.35 < minors(balance=True) < 0.65
        majors = [track for track in tracks if track.key and track.key.mode == "major"]
        config = tiny_config("semi_tone", data__balance_modes=True)
        assert (StepDataset([], majors, config, (1,))[0].labels < 12).all()

    def test_tracks_without_a_key(self, make_tracks: MakeTracks, tiny_config: MakeConfig, tmp_path: Path) -> None:
        labeled = make_tracks(tmp_path / "l", 6, labeled=True, frames=140)
        keyless = [replace(track, keyless=True) for track in make_tracks(tmp_path / "k", 2, labeled=False, frames=140)]
        config = tiny_config("cross_entropy", data__batch_size=200, data__no_key_share=0.25)
        labels = StepDataset([], [*labeled, *keyless], config, (1,))[0].labels
        assert 0.15 < float((labels == NO_KEY_INDEX).float().mean()) < 0.35
        with pytest.raises(DataError, match=r"semi_tone loss cannot learn from tracks without a key.* cross_entropy"):
            StepDataset([], [*labeled, *keyless], tiny_config("semi_tone"), (1,))
        with pytest.raises(DataError, match="needs labels"):
            StepDataset([], keyless, config, (1,))

    def test_cross_entropy_needs_labels(self, datasets: Any) -> None:
        assert {datasets("mixed", "cross_entropy")[step].is_labeled for step in range(2)} == {True, False}
        with pytest.raises(DataError, match="needs labels"):
            datasets("unlabeled", "cross_entropy")


def with_labels_of_teachers(tracks: list[Track], sure: float, key: Key) -> list[Track]:
    """The tracks with two segments that have ``key`` as a pseudo-label with the probability ``sure``."""
    keys = np.full((2, 24), (1 - sure) / 23, dtype=np.float32)
    keys[:, key.index] = sure
    return [replace(track, pseudo_labels=PseudoLabels(np.array([10, 250]), keys)) for track in tracks]


class TestPseudoLabels:
    def test_pseudo_labels_are_balanced_between_the_modes(
        self, tmp_path: Path, make_tracks: MakeTracks, tiny_config: MakeConfig
    ) -> None:
        many, few, doubtful = (
            make_tracks(tmp_path / n, c, labeled=False, frames=320) for n, c in (("a", 9), ("b", 1), ("c", 5))
        )
        tracks = [
            *with_labels_of_teachers(many, 0.9, Key(0, "major")),
            *with_labels_of_teachers(few, 0.6, Key(9, "minor")),
            *with_labels_of_teachers(doubtful, 0.4, Key(5, "major")),
        ]
        labeled = make_tracks(tmp_path / "l", 4, labeled=True, frames=200)
        config = tiny_config(
            "cross_entropy", loss__unlabeled="pseudo_labels", loss__min_confidence=0.5, data__batch_size=32
        )
        dataset = StepDataset(tracks, labeled, config, (1,))
        kinds = [(dataset[step].has_pseudo_labels, dataset[step].is_labeled) for step in range(4)]
        assert kinds == [(True, False), (False, True)] * 2
        batch = dataset[0]
        assert (batch.pseudo_labels.dtype, batch.pseudo_labels.shape, len(batch.second)) == (torch.float32, (32, 24), 0)
        drawn = Counter(batch.pseudo_labels.argmax(dim=1).tolist())
        assert set(drawn) == {0, 21}  # labels without confidence are not drawn
        assert 8 <= drawn[21] <= 24
        assert same(batch, StepDataset(tracks, labeled, config, (1,))[0])

    def test_without_confident_pseudo_labels_only_labels_are_used(
        self, tmp_path: Path, make_tracks: MakeTracks, tiny_config: MakeConfig
    ) -> None:
        tracks = with_labels_of_teachers(
            make_tracks(tmp_path / "u", 2, labeled=False, frames=320), 0.4, Key(5, "major")
        )
        labeled = make_tracks(tmp_path / "l", 4, labeled=True, frames=200)
        dataset = StepDataset(tracks, labeled, tiny_config("cross_entropy", loss__unlabeled="pseudo_labels"), (1,))
        assert all(dataset[step].is_labeled for step in range(4))


class TestAugmentation:
    def test_augmentation_changes_every_segment_and_no_label(self, datasets: Any) -> None:
        for kind in ("labeled", "unlabeled"):
            plain, changed = datasets(kind)[2], datasets(kind, data__augment=True)[2]
            assert torch.equal(plain.labels, changed.labels)
            assert not torch.equal(plain.first, changed.first)
            assert plain.is_labeled or not torch.equal(plain.second, changed.second)

    def test_segments_can_be_time_stretched(
        self, datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stonecli_train.data.step_dataset.augmented", lambda segment, *_: segment)
        for number in range(24):
            frames = np.arange(200, dtype=np.uint8)[:, None]  # each frame contains its number
            np.save(tmp_path / "l" / f"{number}.npy", np.repeat(frames, 99, axis=1))
        plain = datasets("labeled", data__batch_size=64, data__augment=True)[0].first[:, :, 0].int()
        assert (plain.diff(dim=1) == 1).all()
        batch = datasets("labeled", data__batch_size=64, data__augment=True, data__tempo=1.4)[0]
        numbers = batch.first[:, :, 0].int()
        spans = (numbers[:, -1] - numbers[:, 0]) / (numbers.shape[1] - 1)
        assert (spans > 1 / 1.4 - 0.02).all()
        assert (spans < 1.4 + 0.02).all()
        assert spans.max() > 1.25
        assert spans.min() < 0.8
        assert set(numbers.diff(dim=1).unique().tolist()) <= {0, 1, 2}  # steadily
        assert torch.equal(batch.first[:, :, 0], batch.first[:, :, -1])
