from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.key import Key
from stonecli_train.data import (
    Track,
    split_tracks,
)


def labeled(keyed: int, keyless: int) -> list[Track]:
    keys = [Track(Path(f"{number}.npy"), Key.from_index(number % 24)) for number in range(keyed)]
    return [*keys, *(Track(Path(f"n{number}.npy"), keyless=True) for number in range(keyless))]


class TestSplit:
    @settings(max_examples=100, deadline=None)
    @given(count=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
    def test_a_track_is_in_training_or_in_validation(self, count: int, share: float, seed: int) -> None:
        tracks = [Track(Path(f"{number}.npy")) for number in range(count)]
        training, validation = split_tracks(tracks, share, seed)
        assert sorted([*training, *validation], key=tracks.index) == tracks
        assert training
        assert abs(len(validation) - share * count) <= 1
        assert (training, validation) == split_tracks(tracks, share, seed)

    def test_the_split_depends_on_the_seed(self) -> None:
        tracks = [Track(Path(f"{number}.npy")) for number in range(40)]
        assert len({tuple(split_tracks(tracks, 0.25, seed)[1]) for seed in range(10)}) == 10

    def test_a_single_track_is_in_both_parts(self) -> None:
        track = Track(Path("a.npy"))
        assert split_tracks([track], 0.1, 0) == ([track], [track])
        assert split_tracks([], 0.1, 0) == ([], [])


class TestTracksWithoutAKey:
    def test_the_split_of_a_seed_is_stable(self) -> None:
        """A resumed run must not train on tracks that were used for validation."""
        for tracks, expected in (
            (labeled(20, 0), ["0", "2", "6", "13", "14"]),
            (labeled(14, 6), ["0", "2", "6", "13", "n0"]),
        ):
            assert [track.features.stem for track in split_tracks(tracks, 0.25, 3)[1]] == expected

    @settings(max_examples=100, deadline=None)
    @given(keyed=st.integers(2, 5), keyless=st.integers(1, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
    def test_few_tracks_with_a_key_are_in_both_parts(self, keyed: int, keyless: int, share: float, seed: int) -> None:
        tracks = labeled(keyed, keyless)
        parts = split_tracks(tracks, share, seed)
        assert all(any(track.key for track in part) for part in parts)
        if keyless > 1:
            assert sorted([*parts[0], *parts[1]], key=tracks.index) == tracks

    def test_tracks_without_a_key_alone_are_split_as_others(self) -> None:
        parts = split_tracks(labeled(0, 3), 0.25, 0)
        assert [len(part) for part in parts] == [2, 1]
