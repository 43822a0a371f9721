from __future__ import annotations

import itertools
import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.utils.data import IterableDataset  # noqa: E402

from stonecli.key import Key  # noqa: E402
from stonecli_train.checkpoint import load_checkpoint  # noqa: E402
from stonecli_train.config import TrainConfig, override  # noqa: E402
from stonecli_train.data import (  # noqa: E402
    NO_KEY_INDEX,
    Batch,
    DataError,
    StepDataset,
    Track,
    WaveformTracks,
    collect_tracks,
    cut,
    draw_shifts,
    read_labels,
    split_tracks,
    two_starts,
    with_pseudo_labels,
)
from stonecli_train.features import FeatureCache  # noqa: E402
from stonecli_train.pseudo_labels import PseudoLabels, TeacherEnsemble, confirmed_by_chroma  # noqa: E402
from stonecli_train.vqt import VQT, VQTConfig  # noqa: E402

RATE = 22050
Config = Callable[..., TrainConfig]
Tracks = Callable[..., list[Track]]


def tone(path: Path, note: int, seconds: float = 2.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440.0 * 2 ** ((note - 69) / 12) * time), RATE)
    return path


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def labels(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Writes ``labels.csv`` beside the files a.wav, b.wav and "c, d.wav"."""
    for name in ("a.wav", "b.wav", "c, d.wav"):
        (tmp_path / name).write_bytes(b"sound")

    def write(text: str | bytes) -> Path:
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_labels_in_any_spelling(labels: Any, tmp_path: Path) -> None:
    absolute = tmp_path / "b.wav"
    rows = f'path,key,genre\na.wav,F# minor,x\n{absolute},8B,y\n"c, d.wav",1m,z\n'
    expected = [
        (tmp_path / "a.wav", Key(6, "minor")),
        (absolute, Key(0, "major")),
        (tmp_path / "c, d.wav", Key(9, "minor")),
    ]
    assert read_labels(labels(rows)) == expected
    assert read_labels(labels(b"\xef\xbb\xbf" + rows.encode())) == expected
    assert read_labels(labels(rows.replace("\n", "\r\n"))) == expected
    assert read_labels(labels(rows.replace("\n", "\n\n"))) == expected


def test_columns_in_any_order(labels: Any, tmp_path: Path) -> None:
    assert read_labels(labels("key,artist,path\nDbmaj,x,a.wav\n")) == [(tmp_path / "a.wav", Key(1, "major"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,key\na.wav,C\nb.wav,H minor\n", r"labels\.csv: line 3: not a key: 'H minor'"),
        ("path,key\na.wav,\n", r"labels\.csv: line 2: not a key: ''"),
        ("path,key\na.wav\n", r"labels\.csv: line 2: not a key"),
        ('path,key\n"a\n.wav",C\nb.wav,Q\n', r"labels\.csv: line 2: no such file: a \.wav"),
        ("path,key\n\n\na.wav,C\nnone.wav,C\n", r"labels\.csv: line 5: no such file: none\.wav"),
        ("path,key\n,C\n", r"labels\.csv: line 2: no such file"),
        (f"path,key\n{'x' * 5000}.wav,C\n", r"labels\.csv: line 2: .*too long"),
        ("path,key\na.wav,C\nb.wav,C\n./a.wav,Am\n", r"line 4: \./a\.wav is labeled A minor, but C major before"),
        ("path,key\n" + "x" * 200_000, r"labels\.csv: line 2: not valid CSV: field larger"),
        ("path,key\n", r"labels\.csv: the file contains no labels"),
        ("", r"labels\.csv: the file is empty"),
        ("file,key\na.wav,C\n", r"labels\.csv: line 1: no column path \(columns: file, key\)"),
        ("path,path,key\na.wav,b.wav,C\n", r"labels\.csv: line 1: two columns are named path"),
        ("path,key\nb, c.wav,C\n", r"labels\.csv: line 2: 3 fields for 2 columns"),
        (b"\xff\xfep\x00a\x00t\x00h\x00", r"labels\.csv: line 1: no column path"),
    ],
)
def test_mistakes_in_labels(text: str | bytes, message: str, labels: Any) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(labels(text))


def test_a_file_listed_twice_counts_once(labels: Any, tmp_path: Path) -> None:
    """Else it could be a track of training and another of validation."""
    assert read_labels(labels("path,key\na.wav,C\n./a.wav,8B\n")) == [(tmp_path / "a.wav", Key(0, "major"))]


@pytest.mark.skipif(sys.platform == "win32", reason="names there are text")
def test_names_that_are_not_utf_8(labels: Any, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    odd.write_bytes(b"sound")
    assert read_labels(labels(b"path,key\ncaf\xe9.wav,C\n")) == [(odd, Key(0, "major"))]


def test_a_missing_csv_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "none.csv")


# --- tracks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", VQTConfig())


def test_unreadable_files_are_reported_and_skipped(cache: FeatureCache, tmp_path: Path) -> None:
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


def test_an_unreadable_labeled_file_is_reported(cache: FeatureCache, tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 60)
    (tmp_path / "b.wav").write_text("no music")
    (tmp_path / "labels.csv").write_text("path,key\na.wav,C\nb.wav,D\n")
    said: list[str] = []
    unlabeled, labeled = collect_tracks(None, tmp_path / "labels.csv", cache, said.append)
    assert (unlabeled, [track.key for track in labeled]) == ([], [Key(0, "major")])
    assert len(said) == 1
    assert "b.wav" in said[0]


def test_a_labeled_file_is_not_used_unlabeled(cache: FeatureCache, tmp_path: Path) -> None:
    music = tmp_path / "music"
    for number in range(4):
        tone(music / f"{number}.wav", 60 + number)
    (tmp_path / "link").symlink_to(music)
    (tmp_path / "labels.csv").write_text("path,key\nlink/1.wav,C\nmusic/3.wav,Am\n")
    unlabeled, labeled = collect_tracks(music, tmp_path / "labels.csv", cache, pytest.fail)
    assert [track.key for track in labeled] == [Key(0, "major"), Key(9, "minor")]
    assert [track.features for track in unlabeled] == [cache.entry(music / "0.wav"), cache.entry(music / "2.wav")]


@pytest.mark.parametrize("there", [True, False])
def test_nothing_to_train_on(there: bool, cache: FeatureCache, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    if there:
        folder.mkdir()
        (folder / "cover.jpg").touch()
    with pytest.raises(DataError, match=r"no audio to train on in .*music"):
        collect_tracks(folder, None, cache, lambda _: None)


# --- split ------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(count=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_a_track_is_in_training_or_in_validation(count: int, share: float, seed: int) -> None:
    tracks = [Track(Path(f"{number}.npy")) for number in range(count)]
    training, validation = split_tracks(tracks, share, seed)
    assert sorted([*training, *validation], key=tracks.index) == tracks
    assert training
    assert abs(len(validation) - share * count) <= 1
    assert (training, validation) == split_tracks(tracks, share, seed)


def test_the_split_depends_on_the_seed() -> None:
    tracks = [Track(Path(f"{number}.npy")) for number in range(40)]
    assert len({tuple(split_tracks(tracks, 0.25, seed)[1]) for seed in range(10)}) == 10


def test_a_single_track_is_in_both_parts() -> None:
    track = Track(Path("a.npy"))
    assert split_tracks([track], 0.1, 0) == ([track], [track])
    assert split_tracks([], 0.1, 0) == ([], [])


def labeled(keyed: int, keyless: int) -> list[Track]:
    keys = [Track(Path(f"{number}.npy"), Key.from_index(number % 24)) for number in range(keyed)]
    return [*keys, *(Track(Path(f"n{number}.npy"), keyless=True) for number in range(keyless))]


def test_the_split_of_a_seed_is_stable() -> None:
    """A run that is resumed must not learn from what it was validated with."""
    for tracks, expected in (
        (labeled(20, 0), ["0", "2", "6", "13", "14"]),
        (labeled(14, 6), ["0", "2", "6", "13", "n0"]),
    ):
        assert [track.features.stem for track in split_tracks(tracks, 0.25, 3)[1]] == expected


@settings(max_examples=100, deadline=None)
@given(keyed=st.integers(2, 5), keyless=st.integers(1, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_few_tracks_with_a_key_are_in_both_parts(keyed: int, keyless: int, share: float, seed: int) -> None:
    tracks = labeled(keyed, keyless)
    parts = split_tracks(tracks, share, seed)
    assert all(any(track.key for track in part) for part in parts)
    if keyless > 1:
        assert sorted([*parts[0], *parts[1]], key=tracks.index) == tracks


def test_tracks_without_a_key_alone_are_split_as_others() -> None:
    parts = split_tracks(labeled(0, 3), 0.25, 0)
    assert [len(part) for part in parts] == [2, 1]


# --- segments ---------------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(length=st.integers(1, 400), frames=st.integers(1, 100), seed=st.integers(0, 10_000))
def test_two_segments_lie_in_the_track_and_apart(length: int, frames: int, seed: int) -> None:
    starts = two_starts(length, frames, np.random.default_rng(seed))
    early, late = sorted(starts)
    assert early >= 0
    if length >= 2 * frames:
        assert late + frames <= length
        assert late - early >= frames
    elif length >= frames:
        assert (early, late) == (0, length - frames)
    else:
        assert starts == (0, 0)


@pytest.mark.parametrize("length", range(6, 13))
def test_all_pairs_without_overlap_are_drawn(length: int) -> None:
    """Tracks of two to four segments of three frames."""
    rng = np.random.default_rng(0)
    drawn = Counter(two_starts(length, 3, rng) for _ in range(6000))
    possible = {(a, b) for a, b in itertools.product(range(length - 2), repeat=2) if abs(a - b) >= 3}
    assert set(drawn) == possible
    assert min(drawn.values()) > 6000 / len(possible) / 3


@pytest.mark.parametrize("spare", [1, 5, 11, 12, 15, 30])
def test_shifts(spare: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_shifts(spare, rng) for _ in range(6000)]
    most = min(11, spare)
    assert all(0 <= shift <= spare for pair in drawn for shift in pair)
    differences = Counter(transposed - plain for plain, transposed in drawn)
    assert set(differences) == {difference for difference in range(-most, most + 1) if difference}
    assert min(differences.values()) > 6000 / (2 * most) / 2
    assert {plain for plain, _ in drawn} == {transposed for _, transposed in drawn} == set(range(spare + 1))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 60), frames=st.integers(1, 50), start=st.integers(0, 70))
def test_a_cut_is_as_long_as_asked(length: int, frames: int, start: int) -> None:
    features = np.arange(length, dtype=np.uint8)[:, None] * np.ones((1, 4), np.uint8)
    start = min(start, max(0, length - frames))
    segment = cut(features, start, frames)
    assert segment.shape == (frames, 4)
    assert segment[:, 0].tolist() == [(start + number) % length for number in range(frames)]


# --- batches ----------------------------------------------------------------------------------------------------------


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def datasets(tmp_path: Path, make_tracks: Tracks, tiny_config: Config) -> Callable[..., StepDataset]:
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


def test_shapes(datasets: Any, tiny_config: Config) -> None:
    frames = tiny_config().segment_frames
    batch = datasets("unlabeled")[0]
    assert not batch.is_labeled
    assert (batch.first.shape, batch.second.shape) == ((8, frames, 99), (8, frames, 99))
    assert (batch.first.dtype, batch.labels.shape, batch.shifts.shape) == (torch.uint8, (0,), (8, 2))
    batch = datasets("labeled")[0]
    assert batch.is_labeled
    assert (batch.first.shape, len(batch.second), batch.labels.shape) == ((8, frames, 99), 0, (8,))


def test_a_batch_is_a_function_of_seed_purpose_step_and_row(datasets: Any) -> None:
    batch = datasets()[3]
    assert same(batch, datasets()[3])
    dataset = datasets()
    for step in (9, 0, 5):
        dataset[step]
    assert same(batch, dataset[3])  # whatever came before
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
def test_ranks_share_out_the_rows_of_one_process(kind: str, count: int, datasets: Any) -> None:
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
def test_batches_of_many_lengths(kind: str, datasets: Any, tiny_config: Config) -> None:
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


def with_labels_of_teachers(tracks: list[Track], sure: float, key: Key) -> list[Track]:
    """The tracks with two segments that have ``key`` as a pseudo-label with the probability ``sure``."""
    keys = np.full((2, 24), (1 - sure) / 23, dtype=np.float32)
    keys[:, key.index] = sure
    return [replace(track, pseudo_labels=PseudoLabels(np.array([10, 250]), keys)) for track in tracks]


def test_pseudo_labels_are_balanced_between_the_modes(tmp_path: Path, make_tracks: Tracks, tiny_config: Config) -> None:
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
    tmp_path: Path, make_tracks: Tracks, tiny_config: Config
) -> None:
    tracks = with_labels_of_teachers(make_tracks(tmp_path / "u", 2, labeled=False, frames=320), 0.4, Key(5, "major"))
    labeled = make_tracks(tmp_path / "l", 4, labeled=True, frames=200)
    dataset = StepDataset(tracks, labeled, tiny_config("cross_entropy", loss__unlabeled="pseudo_labels"), (1,))
    assert all(dataset[step].is_labeled for step in range(4))


def test_tracks_get_pseudo_labels(tmp_path: Path, make_tracks: Tracks, tiny_config: Config) -> None:
    checkpoint = load_checkpoint(Path(__file__).resolve().parents[2] / "checkpoints" / "stone_7.pt")
    tracks = make_tracks(tmp_path / "u", 3, labeled=False, frames=700)
    said: list[str] = []
    teachers = TeacherEnsemble([checkpoint], 600, tmp_path / "kept")
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


def test_a_batch_has_to_be_divisible(datasets: Any) -> None:
    with pytest.raises(DataError, match="8 cannot be shared by 3"):
        datasets(count=3)


def test_labeled_and_unlabeled_batches_alternate(datasets: Any) -> None:
    dataset = datasets("mixed")
    kinds = [dataset[step].is_labeled for step in range(6)]
    assert kinds in ([False, True] * 3, [True, False] * 3)
    assert not any(datasets("unlabeled")[step].is_labeled for step in range(3))
    assert all(datasets("labeled")[step].is_labeled for step in range(3))


def test_cross_entropy_needs_labels(datasets: Any) -> None:
    assert {datasets("mixed", "cross_entropy")[step].is_labeled for step in range(2)} == {True, False}
    with pytest.raises(DataError, match="needs labels"):
        datasets("unlabeled", "cross_entropy")


def test_segments_come_from_the_tracks_with_their_labels(datasets: Any, tmp_path: Path) -> None:
    stored = [np.load(tmp_path / "l" / f"{number}.npy") for number in range(24)]
    keys = [Key.from_index(7 * number % 24).index for number in range(24)]
    batch = datasets("labeled", data__batch_size=64)[0]
    frames = batch.first.shape[1]
    seen = set()
    for segment, label in zip(batch.first.numpy(), batch.labels.tolist(), strict=True):
        track = stored[keys.index(label)]
        starts = [start for start in range(len(track) - frames + 1) if (track[start : start + frames] == segment).all()]
        assert len(starts) == 1
        seen.add(starts[0])
    assert len(seen) > 20
    assert len(set(batch.labels.tolist())) > 15


def test_the_segments_of_a_pair_come_from_one_track(datasets: Any, tmp_path: Path) -> None:
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


def test_modes_are_balanced_on_demand(make_tracks: Tracks, tiny_config: Config, tmp_path: Path) -> None:
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


def test_unlabeled_batches_can_be_few(datasets: Any) -> None:
    few = datasets("mixed", data__unlabeled_every=4)
    assert [few[step].is_labeled for step in range(9)] == [False, True, True, True] * 2 + [False]


def test_tracks_without_a_key(make_tracks: Tracks, tiny_config: Config, tmp_path: Path) -> None:
    labeled = make_tracks(tmp_path / "l", 6, labeled=True, frames=140)
    keyless = [replace(track, keyless=True) for track in make_tracks(tmp_path / "k", 2, labeled=False, frames=140)]
    config = tiny_config("cross_entropy", data__batch_size=200, data__no_key_share=0.25)
    labels = StepDataset([], [*labeled, *keyless], config, (1,))[0].labels
    assert 0.15 < float((labels == NO_KEY_INDEX).float().mean()) < 0.35
    with pytest.raises(DataError, match=r"semi_tone loss cannot learn from tracks without a key.* cross_entropy"):
        StepDataset([], [*labeled, *keyless], tiny_config("semi_tone"), (1,))
    with pytest.raises(DataError, match="needs labels"):
        StepDataset([], keyless, config, (1,))


def test_the_label_none(labels: Any, tmp_path: Path) -> None:
    assert read_labels(labels("path,key\na.wav,none\nb.wav,Am\n")) == [
        (tmp_path / "a.wav", None),
        (tmp_path / "b.wav", Key(9, "minor")),
    ]
    with pytest.raises(DataError, match="is labeled C major, but no key before"):
        read_labels(labels("path,key\na.wav,none\n./a.wav,C\n"))


def test_augmentation_changes_every_segment_and_no_label(datasets: Any) -> None:
    for kind in ("labeled", "unlabeled"):
        plain, changed = datasets(kind)[2], datasets(kind, data__augment=True)[2]
        assert torch.equal(plain.labels, changed.labels)
        assert not torch.equal(plain.first, changed.first)
        assert plain.is_labeled or not torch.equal(plain.second, changed.second)


def test_segments_are_played_faster_and_more_slowly_on_demand(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stonecli_train.data.augmented", lambda segment, *_: segment)
    for number in range(24):
        frames = np.arange(200, dtype=np.uint8)[:, None]  # each frame says its number
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


def test_a_short_track_is_repeated(make_tracks: Tracks, tiny_config: Config, tmp_path: Path) -> None:
    tracks = make_tracks(tmp_path, 1, labeled=False, frames=50)
    batch = StepDataset(tracks, [], tiny_config(), (1,))[0]
    np.testing.assert_array_equal(batch.first[0].numpy(), np.resize(np.load(tracks[0].features), batch.first[0].shape))


# --- waveforms --------------------------------------------------------------------------------------------------------


def waveforms(batch: int, channels: int, seconds: float = 1.5) -> Any:
    return torch.randn(batch, round(seconds * RATE), channels, generator=torch.Generator().manual_seed(channels))


def test_pairs_of_waveforms(tiny_config: Config) -> None:
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


def test_waveforms_with_labels(tiny_config: Config) -> None:
    batch = WaveformTracks([(waveforms(2, 1), ["A minor", "Db major"])], tiny_config("semi_tone"))[0]
    assert batch.labels.tolist() == [Key(9, "minor").index, Key(1, "major").index]
    assert (len(batch.first), len(batch.second)) == (2, 0)


def test_the_originals_dictionaries(tiny_config: Config) -> None:
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
def test_other_waveforms_are_refused(item: Any, message: str, tiny_config: Config) -> None:
    with pytest.raises(DataError, match=message):
        WaveformTracks([item], tiny_config())[0]


def test_waveforms_travel_to_workers(tiny_config: Config) -> None:
    dataset = WaveformTracks([waveforms(2, 2)], tiny_config())
    assert same(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


# --- data loaders of the user's ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["supervised", "selfsupervised", "mix"])
def test_the_originals_data_loaders(kind: str, tiny_config: Any) -> None:
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
def test_every_source_gives_the_same_batch_of_a_step(wrap: str, tiny_config: Any) -> None:
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
        with pytest.raises(DataError, match="give an iterable"):
            tracks[0]
    else:
        assert torch.equal(tracks[0].first, expected[0])


def test_a_data_loader_that_ends(tiny_config: Any) -> None:
    def source() -> Any:
        yield original_batch(0, "supervised")

    tracks = WaveformTracks(source(), tiny_config("semi_tone"))
    tracks[0]
    with pytest.raises(DataError, match="ended before step 1"):
        tracks[1]


def test_a_list_of_batches_that_is_too_short_is_an_error(tiny_config: Config) -> None:
    with pytest.raises(DataError, match="no batch for step 0"):
        WaveformTracks([], tiny_config())[0]
