from pathlib import Path

import pytest

from stonecli.jobs import Outcome
from stonecli.key import Key
from stonecli.library.locations import Location
from stonecli.mixing.mix import MixOptions, MixTrack, compatible, compatible_tracks, harmonic_mix, mix
from stonecli.mixing.transitions import Track
from stonecli.model.session import KeyModel
from stonecli.tags import write_key
from stonecli.tags.track_info import TrackInfo
from tests.fixture_types import CopySong


def mix_track(name: str, key: str | None, bpm: float | None = None) -> MixTrack:
    path = Path(name)
    track = Track(path, Key.parse(key), "tag", None, bpm) if key else None
    return MixTrack(path, track, TrackInfo(bpm=bpm), 200.0)


CRATE = [mix_track("a", "8A", 120), mix_track("b", "10A", 122), mix_track("c", "9A", 121), mix_track("none", None)]


def test_the_order_skips_tracks_without_a_key() -> None:
    mix = harmonic_mix(CRATE, start=CRATE[0])
    assert [track.path.name for track in mix.tracks] == ["a", "c", "b"]
    assert [transition.name for transition in mix.transitions] == ["one up", "one up"]
    assert mix.cost == pytest.approx(sum(transition.cost for transition in mix.transitions), abs=1e-3)
    assert mix.gap == pytest.approx(0, abs=0.01)


def test_a_track_that_changes_key_goes_between_the_two() -> None:
    changing = Track(Path("x"), Key.parse("8A"), "detected", first_key=Key.parse("8A"), last_key=Key.parse("3B"))
    crate = [mix_track("a", "8A"), mix_track("b", "3B"), MixTrack(changing.path, changing, TrackInfo(), 200.0)]
    mix = harmonic_mix(crate)
    assert [track.path.name for track in mix.tracks] == ["a", "x", "b"]
    assert mix.cost == mix.bound == 0.0


def test_ends_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no key"):
        harmonic_mix(CRATE, end=CRATE[3])
    with pytest.raises(ValueError, match="this track already has a position"):
        harmonic_mix(CRATE, start=CRATE[0], end=CRATE[0])
    with pytest.raises(ValueError, match="another track has this position"):
        harmonic_mix(CRATE, start=CRATE[0], at={1: CRATE[1]})
    with pytest.raises(ValueError, match="no key"):
        harmonic_mix(CRATE, at={2: CRATE[3]})
    with pytest.raises(ValueError, match="from 1 to 3"):
        harmonic_mix(CRATE, at={4: CRATE[0]})


def test_nothing_to_mix() -> None:
    assert harmonic_mix([CRATE[3]]).tracks == ()
    assert harmonic_mix([CRATE[0]]).transitions == ()


def test_compatible_tracks_come_best_first() -> None:
    assert CRATE[0].track
    found = compatible_tracks(CRATE[0].track, [*CRATE, mix_track("far", "2A"), mix_track("fast", "8A", 150)])
    assert [track.path.name for track, _ in found] == ["c", "b"]


class TestMix:
    def test_it_reads_the_files_and_orders_them(self, song: CopySong, key_model: KeyModel) -> None:
        paths = [song("flac", name) for name in ("a", "b", "c")]
        for path, key in zip(paths, ("8A", "3B", "9A"), strict=True):
            write_key(path, Key.parse(key))
        (paths[0].parent / "broken.mp3").write_bytes(b"no music")
        outcomes: list[Outcome[Location, MixTrack]] = []
        options = MixOptions(use_cache=False)
        found = mix([paths[0].parent], options, start=paths[2], model=key_model, on_result=outcomes.append)
        assert found.tracks[0].path == paths[2]
        assert {track.path for track in found.tracks} == set(paths)
        assert [outcome.item.name for outcome in outcomes if outcome.error] == ["broken.mp3"]
        assert [outcome.item.name for outcome in found.left_out] == ["broken.mp3"]
        others = compatible([paths[0].parent], "a", options, model=key_model)
        assert [track.path.stem for track, _ in others.others] == ["c"]

    def test_a_start_that_cannot_be_read_is_refused(self, song: CopySong, key_model: KeyModel) -> None:
        path = song("flac")
        (path.parent / "broken.mp3").write_bytes(b"no music")
        with pytest.raises(ValueError, match="cannot be mixed"):
            mix([path], start=path.parent / "broken.mp3", model=key_model)
