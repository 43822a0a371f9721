"""Optimizations do not change the answers: the shipped path and the straightforward one give the same, on files.

The straightforward path: soxr HQ to 22.05 kHz, MQ for the tuning, and the transform that the network was trained with.
``benchmarks/agreement.py`` does the same on any folder.
"""

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.fixture_types import Encode, MakeMusic, MakeNoise

pytest.importorskip("torch")

from stonecli.audio import resample as resampling
from stonecli.audio.decode import read_audio
from stonecli.detection.detect import detect_key, detect_key_in_audio
from stonecli.detection.estimate import KeyEstimate
from stonecli.model.session import KeyModel
from stonecli_export.onnx_file import export_checkpoint, export_straightforward

MOST = 0.02  # between two probabilities
RENDERED = [
    ("C major", "mp3", 44100, 0.0),
    ("F# minor", "mp3", 44100, -23.0),
    ("Bb major", "mp3", 48000, 11.0),
    ("E minor", "flac", 44100, 3.0),
    ("Ab major", "flac", 96000, 40.0),
    ("B minor", "flac", 48000, -7.0),
    ("D minor", "ogg vorbis", 44100, 17.0),
    ("G major", "opus", 48000, -35.0),
    ("C# minor", "m4a aac", 44100, 0.0),
    ("A major", "wav 16 bit", 22050, 28.0),
    ("F minor", "wav 16 bit", 32000, 0.0),
    ("Eb major", "wav 16 bit", 11025, -2.0),
]


@pytest.fixture(scope="module")
def models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyModel, KeyModel]:
    """The same checkpoint, straightforward and as it is shipped."""
    folder, checkpoint = tmp_path_factory.mktemp("models"), shared / "model" / "first_default.pt"
    export_straightforward(checkpoint, folder / "plain.onnx")
    export_checkpoint(checkpoint, folder / "fast.onnx")
    return KeyModel(folder / "plain.onnx", "cpu"), KeyModel(folder / "fast.onnx", "cpu")


def assert_same(path: Path, models: tuple[KeyModel, KeyModel]) -> None:
    plain, fast = models
    with mock.patch.object(resampling, "MIN_RATIO", math.inf):  # soxr's are all
        expected = detect_key_in_audio(read_audio(path, 22050), plain, 22050)
    found: KeyEstimate = detect_key(path, fast)
    assert found.key == expected.key
    assert np.abs(found.probabilities - expected.probabilities).max() < MOST
    for window, other in zip(found.windows, expected.windows, strict=True):
        assert np.abs(window.probabilities - other.probabilities).max() < MOST
    assert found.duration == pytest.approx(expected.duration, abs=0.05)
    assert found.tuning_cents == pytest.approx(expected.tuning_cents, abs=0.5)
    assert [window.tonal for window in found.windows] == [window.tonal for window in expected.windows]
    assert [segment.key for segment in found.segments] == [segment.key for segment in expected.segments]


def test_they_do_differ(models: tuple[KeyModel, KeyModel]) -> None:
    assert [model.info.sample_rate for model in models] == [22050, 11025]


@pytest.mark.parametrize(
    "name",
    [
        "bach_bwv1001_telmanyi_excerpt.mp3",
        "bach_bwv1002_sarabande_garner.mp3",
        "bach_bwv1003_allegro_kim.opus",
        "bach_bwv1003_andante_kim.opus",
        "brahms_hungarian_dance_5.ogg",
        "pitch_fork_c_major.mp3",
        "tchaikovsky_sugar_plum_macleod.ogg",
    ],
)
def test_recordings(shared: Path, models: tuple[KeyModel, KeyModel], name: str) -> None:
    assert_same(shared / "audio" / name, models)


@pytest.mark.parametrize(("key", "container", "rate", "cents"), RENDERED, ids=str)
def test_renderings(
    music: MakeMusic,
    noise: MakeNoise,
    encode: Encode,
    models: tuple[KeyModel, KeyModel],
    tmp_path: Path,
    key: str,
    container: str,
    rate: int,
    cents: float,
) -> None:
    samples = music(key, seconds=40, rate=rate, cents=cents) + 0.003 * noise(1, 40, rate)  # as a recording has
    assert_same(encode(np.stack([samples, 0.7 * samples], axis=1), rate, container, tmp_path / "song"), models)
