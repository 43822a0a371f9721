from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.fixture_types import Samples

torch = pytest.importorskip("torch")

from stonecli.errors import AudioError  # noqa: E402
from stonecli_train import features  # noqa: E402
from stonecli_train.features import FeatureCache, load_features, read_track, save_atomically, track_features  # noqa: E402
from stonecli_train.vqt import VQT, VQTConfig  # noqa: E402

RATE = 22050


def tones(seconds: float, cents: float = 0.0, seed: int = 0) -> Samples:
    """Notes that come and go, over a little noise."""
    rng = np.random.default_rng(seed)
    time_ = np.arange(round(seconds * RATE)) / RATE
    out = 0.003 * rng.standard_normal(len(time_))
    for number, note in enumerate((21, 33, 40, 48, 57, 64, 69, 84, 96, 107)):
        frequency = 440.0 * 2 ** ((note - 69) / 12 + cents / 1200)
        out += np.sin(2 * np.pi * frequency * time_ + number) * (np.sin((0.5 + 0.1 * number) * time_ + number) > 0)
    return (0.3 * out / np.abs(out).max()).astype(np.float32)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "music" / "song.wav"
    path.parent.mkdir()
    soundfile.write(path, tones(4.0), RATE)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", VQTConfig())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A list to which the path of every decoded file is added."""
    seen: list[Path] = []

    def read(path: Path, sample_rate: int) -> Samples:
        seen.append(path)
        return read_track(path, sample_rate)

    monkeypatch.setattr(features, "read_track", read)
    return seen


# --- the transform ----------------------------------------------------------------------------------------------------


def at_once(samples: Samples, config: VQTConfig) -> npt.NDArray[np.int64]:
    """The features by the transform of the whole track in one piece, from the words of the docstring."""
    samples = samples / np.abs(samples).max()
    magnitude = VQT(config).magnitude(torch.from_numpy(samples)[None])[0].double().numpy().T
    decibels = 10.0 * np.log10(np.maximum(magnitude, 1e-10))
    return np.clip(np.rint((decibels - decibels.max() + 80.0) / 80.0 * 255.0), 0, 255).astype(np.int64)


@pytest.mark.parametrize("seconds", [0.3, 2.0, 9.0, 10.0, 10.02, 10.9, 12.3, 20.0])
def test_chunks_join_without_a_seam(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK_SECONDS", 5.0)
    samples = tones(seconds)
    got = track_features(samples, VQTConfig(), corrects_tuning=False)
    if seconds < 1.0:
        samples = np.pad(samples, (0, 64 * 512 - len(samples)))
    expected = at_once(samples, VQTConfig())[: len(got)]
    assert got.dtype == np.uint8
    assert len(got) == round(seconds * RATE) // 512 + 1
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("hop", [256, 768, 2048])
def test_other_hops_join_without_a_seam(hop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK_SECONDS", 4.0)
    config = VQTConfig(hop_length=hop)
    samples = tones(9.0)
    got = track_features(samples, config, corrects_tuning=False)
    assert got.shape == (9 * RATE // hop + 1, 99)
    assert np.abs(got - at_once(samples, config)).max() <= 1
    assert len(track_features(samples[:3000], config, corrects_tuning=False)) == 3000 // hop + 1


def test_the_seam_test_would_see_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of chunks without a margin differ at their boundaries."""
    samples = tones(10.0)
    parts = [track_features(piece, VQTConfig(), False)[:215] for piece in np.split(samples[: 2 * 215 * 512], 2)]
    assert np.abs(np.concatenate(parts) - at_once(samples, VQTConfig())[:430])[205:225].max() > 1


def test_the_scale_is_80_decibels_below_the_loudest_bin() -> None:
    got = track_features(tones(3.0), VQTConfig(), corrects_tuning=False)
    assert got.shape[1] == 99
    assert got.max() == 255
    time_ = np.arange(3 * RATE) / RATE
    two = (np.sin(2 * np.pi * 110 * time_) + 0.001 * np.sin(2 * np.pi * 440 * time_)).astype(np.float32)
    middle = track_features(two, VQTConfig(), corrects_tuning=False)[60]
    # 1/1000 of the amplitude is 30 dB of 10 log10 |x|, 3/8 of the scale; octaves have nearly equal weights.
    assert middle[24] == 255
    assert 255 - middle[48] == pytest.approx(30 / 80 * 255, abs=12)


def test_features_do_not_depend_on_loudness() -> None:
    samples = tones(3.0)
    quiet = track_features(samples * np.float32(0.01), VQTConfig(), corrects_tuning=False)
    assert np.abs(quiet.astype(int) - track_features(samples, VQTConfig(), corrects_tuning=False)).max() <= 1


@pytest.mark.parametrize("cents", [-42.0, 35.0])
def test_tuning_is_corrected(cents: float) -> None:
    in_tune = track_features(tones(8.0), VQTConfig(), corrects_tuning=False).astype(float)
    off = tones(8.0, cents)
    corrected = track_features(off, VQTConfig(), corrects_tuning=True).astype(float)
    uncorrected = track_features(off, VQTConfig(), corrects_tuning=False).astype(float)
    # Resampling changes the length: high tracks become longer.
    assert len(corrected) == pytest.approx(len(in_tune) * 2 ** (cents / 1200), abs=1.5)
    target = in_tune.mean(axis=0)
    assert np.abs(corrected.mean(axis=0) - target).max() < 0.25 * np.abs(uncorrected.mean(axis=0) - target).max()


def test_audio_in_tune_stays_unchanged() -> None:
    same = track_features(tones(4.0), VQTConfig(), corrects_tuning=True)
    np.testing.assert_allclose(same.astype(int), track_features(tones(4.0), VQTConfig(), False), atol=2)


@pytest.mark.parametrize("samples", [np.zeros(RATE, "f4"), np.full(RATE, 5e-5, "f4"), np.zeros(0, "f4")])
def test_silence_is_refused(samples: Samples) -> None:
    with pytest.raises(AudioError, match="silent"):
        track_features(samples, VQTConfig(), corrects_tuning=False)


def test_a_long_recording_is_cut(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MAX_SECONDS", 1.0)
    monkeypatch.setattr("stonecli.audio.source.BLOCK_SECONDS", 0.5)
    assert RATE <= len(read_track(recording, RATE)) < 2 * RATE


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_file_is_decoded_once(cache: FeatureCache, recording: Path, decoded: list[Path]) -> None:
    entry = cache.features(recording)
    content = entry.read_bytes()
    assert decoded == [recording]
    assert cache.features(recording) == entry
    assert replace(cache).features(recording) == entry
    assert decoded == [recording]
    assert entry.read_bytes() == content
    stored = np.load(entry)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, track_features(read_track(recording, RATE), VQTConfig(), False))


def test_a_changed_file_gets_a_new_entry(cache: FeatureCache, recording: Path, decoded: list[Path]) -> None:
    entry = cache.features(recording)
    status = recording.stat()
    os.utime(recording, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = cache.features(recording)
    soundfile.write(recording, tones(5.0, seed=1), RATE)
    os.utime(recording, ns=(status.st_atime_ns, status.st_mtime_ns))
    longer = cache.features(recording)
    assert len({entry, touched, longer}) == len(decoded) == 3
    assert len(np.load(longer)) == 5 * RATE // 512 + 1


@pytest.mark.parametrize(
    "other", [{"corrects_tuning": True}, {"vqt": VQTConfig(n_bins=98)}, {"vqt": VQTConfig(fmin=28)}]
)
def test_another_transform_gets_a_separate_entry(cache: FeatureCache, recording: Path, other: dict[str, Any]) -> None:
    assert replace(cache, **other).entry(recording) != cache.entry(recording)


def test_two_files_with_the_same_name_have_two_entries(cache: FeatureCache, recording: Path, tmp_path: Path) -> None:
    copy = tmp_path / "song.wav"
    copy.write_bytes(recording.read_bytes())
    status = recording.stat()
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.entry(copy) != cache.entry(recording)


def test_a_missing_file_is_an_os_error(cache: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cache.features(tmp_path / "none.wav")


@pytest.mark.skipif(sys.platform == "win32", reason="names there are text")
def test_names_that_are_not_utf_8(cache: FeatureCache, recording: Path) -> None:
    odd = recording.rename(Path(os.fsdecode(os.fsencode(recording.parent) + b"/caf\xe9.wav")))
    assert cache.features(odd).is_file()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:40],
        lambda content: content[: len(content) // 2],
        lambda content: b"x" * len(content),
    ],
)
def test_a_damaged_entry_is_recomputed(
    damage: Callable[[bytes], bytes], cache: FeatureCache, recording: Path, decoded: list[Path]
) -> None:
    entry = cache.features(recording)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert cache.features(recording) == entry
    assert entry.read_bytes() == whole
    assert len(decoded) == 2


def test_silence_stores_nothing(cache: FeatureCache, recording: Path) -> None:
    soundfile.write(recording, np.zeros(RATE, "f4"), RATE)
    with pytest.raises(AudioError, match="silent"):
        cache.features(recording)
    assert not list(cache.folder.glob("*"))


@pytest.mark.parametrize("where", ["numpy.save", "os.fsync"])
def test_a_full_disk_leaves_no_entry(where: str, cache: FeatureCache, recording: Path, monkeypatch: Any) -> None:
    def full(file: Any, *_: Any) -> None:
        if not isinstance(file, int):
            file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(where, full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        cache.features(recording)
    assert list(cache.folder.iterdir()) == []
    monkeypatch.undo()
    assert cache.features(recording).is_file()


def test_a_full_disk_leaves_the_old_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    save_atomically(path, np.ones((3, 99), np.uint8))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        save_atomically(path, np.zeros((3, 99), np.uint8))
    assert np.load(path).all()
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from pathlib import Path
import numpy as np
from stonecli_train import features
big = np.zeros((200_000, 99), np.uint8)
print("ready", flush=True)
while True:
    features.save_atomically(Path(sys.argv[1]) / "entry.npy", big)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_writer_leaves_no_partial_entry(tmp_path: Path) -> None:
    """A process is killed while it writes, up to ten times: the cache never contains a partial entry."""
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            deadline = time.monotonic() + 20
            while not list(folder.glob(".*.tmp")) and time.monotonic() < deadline:
                time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
        entry = folder / "entry.npy"
        if entry.exists():
            assert np.load(entry).shape == (200_000, 99)
        if list(folder.glob(".*.tmp")):
            return  # it was in the midst
    pytest.fail("the writer was never caught in the midst of writing")


def test_feature_files_are_not_cached_again(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", VQTConfig())
    path = tmp_path / "rendered.npy"
    np.save(path, np.zeros((50, 99), dtype=np.uint8))
    assert cache.features(path) == path
    np.save(path, np.zeros((50, 84), dtype=np.uint8))
    with pytest.raises(AudioError, match="not features of 99 bins"):
        cache.features(path)


def test_saved_features_load_unchanged(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (50, 99), dtype=np.uint8)
    np.save(tmp_path / "a.npy", drawn)
    assert np.array_equal(load_features(tmp_path / "a.npy", 99), drawn)


def test_a_file_without_features_is_named(no_features: Path) -> None:
    with pytest.raises(AudioError, match=r"^not features of 99 bins") as caught:
        load_features(no_features, 99)
    assert vars(caught.value)["filename"] == str(no_features)
    with pytest.raises(FileNotFoundError):
        load_features(no_features.with_name("none.npy"), 99)
