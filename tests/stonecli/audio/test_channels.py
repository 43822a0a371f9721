"""Out-of-phase channels are subtracted; ordinary recordings are averaged, bit by bit as before."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from stonecli.audio.channels import ChannelMixer
from stonecli.audio.convert import Decimator
from stonecli.audio.decode import open_audio, read_audio
from stonecli.detection.detect import detect_key
from tests.fixture_types import Encode, MakeMusic, MakeNoise, Samples

RATE = 44100
KEY = "F# minor"


@pytest.fixture(scope="module")
def wide(music: MakeMusic, noise: MakeNoise) -> Samples:
    """Stereo with music in the middle and noise, such as a reverb tail, at the sides, float32 [n, 2]."""
    middle, side = music(KEY, seconds=16, rate=RATE), 0.1 * noise(1, seconds=16, rate=RATE)
    return np.stack([middle + side, middle - side], axis=1)


def low_rate(path: Path) -> Samples:
    return np.concatenate(list(open_audio(path, 11025).blocks))


@pytest.mark.parametrize("container", ["wav 16 bit", "aiff", "flac", "mp3", "ogg vorbis", "m4a aac", "opus", "wavpack"])
def test_an_inverted_channel_does_not_change_the_key(
    tmp_path: Path, encode: Encode, wide: Samples, container: str
) -> None:
    original = detect_key(encode(wide, RATE, container, tmp_path / "original"))
    inverted = detect_key(encode(wide * np.array([1, -1], np.float32), RATE, container, tmp_path / "inverted"))
    assert original.key is not None
    assert original.key.musical == "F#m"
    assert inverted.key == original.key  # it was None
    assert inverted.confidence == pytest.approx(original.confidence, abs=0.02)


@pytest.mark.parametrize("container", ["wav 16 bit", "m4a aac"])
def test_a_dc_offset_does_not_hide_an_inverted_channel(
    tmp_path: Path, encode: Encode, music: MakeMusic, container: str
) -> None:
    """As from a cheap sound card: the mean of the channels is then not silent, but holds nothing else."""
    mono = 0.5 * music(KEY, seconds=16, rate=RATE)
    inverted = np.stack([mono, -mono], axis=1) + np.array([0.2, 0.15], np.float32)
    found = detect_key(encode(inverted, RATE, container, tmp_path / "a"))
    assert found.key is not None
    assert found.key.musical == "F#m"


@pytest.mark.parametrize("container", ["wav float", "wavpack"])
def test_an_inverted_channel_gives_the_same_samples(
    tmp_path: Path, encode: Encode, music: MakeMusic, container: str
) -> None:
    mono = music(KEY, seconds=16, rate=RATE)
    samples = np.stack([mono, -mono], axis=1)
    original = low_rate(encode(np.stack([mono, mono], axis=1), RATE, container, tmp_path / "original"))
    np.testing.assert_allclose(low_rate(encode(samples, RATE, container, tmp_path / "a")), original, atol=1e-6)
    # The other one inverted: the same with the opposite sign, or none.
    found = low_rate(encode(-samples, RATE, container, tmp_path / "b"))
    np.testing.assert_allclose(np.abs(found), np.abs(original), atol=1e-6)


def test_a_pair_of_inverted_channels_among_four(tmp_path: Path, music: MakeMusic) -> None:
    mono = music(KEY, seconds=16, rate=RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([mono, -mono, -mono, mono], axis=1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", mono, RATE, subtype="FLOAT")
    np.testing.assert_allclose(low_rate(tmp_path / "a.wav"), low_rate(tmp_path / "b.wav"), atol=1e-5)


def test_a_recording_that_is_out_of_phase_from_its_middle_on(tmp_path: Path, music: MakeMusic) -> None:
    """As one inverted record in a DJ mix: nothing of it is lost but what the 30 s memory takes."""
    mono = music(KEY, seconds=60, rate=22050)
    stereo = np.stack([np.tile(mono, 4)] * 2, axis=1)
    middle = len(stereo) // 2
    stereo[middle:, 1] *= -1
    soundfile.write(tmp_path / "a.wav", stereo, 22050, subtype="PCM_16")
    found = np.concatenate(list(read_audio(tmp_path / "a.wav", 11025)))
    late = np.abs(found[len(found) // 2 + 45 * 11025 :])
    assert np.sqrt(np.mean(late**2)) == pytest.approx(np.sqrt(np.mean(mono**2)), rel=0.05)
    early = found[: len(found) // 2 - 11025]
    assert np.sqrt(np.mean(early**2)) == pytest.approx(np.sqrt(np.mean(mono**2)), rel=0.05)


@pytest.mark.parametrize(
    ("signals", "signs"),
    [
        (lambda a, b: (a, a), (1, 1)),
        (lambda a, b: (a, b), (1, 1)),  # unrelated
        (lambda a, b: (a, 0 * a), (1, 1)),  # one silent channel
        (lambda a, b: (a, -0.2 * a), (1, 1)),  # the mean is still 0.4 a
        (lambda a, b: (a + b, a - b), (1, 1)),
        (lambda a, b: (a, -a), (1, -1)),
        (lambda a, b: (-a, a), (1, -1)),
        (lambda a, b: (a, -0.8 * a + 0.2 * b), (1, -1)),  # partly out of phase
        (lambda a, b: (a, np.nan * a), (1, 1)),
        (lambda a, b: (a, b, a, -b, 0 * a), (1, 1, 1, 1, 1)),  # the mean keeps a
        (lambda a, b: (a, -a, a, -a), (1, -1, 1, -1)),
        (lambda a, b: (a,), (1,)),
        (lambda a, b: (0 * a, 0 * a), (1, 1)),
    ],
)
def test_signs_by_covariance(
    signals: Callable[[Samples, Samples], tuple[Samples, ...]], signs: tuple[int, ...]
) -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 4 * RATE)).astype(np.float32)
    block = np.stack(signals(first, second), axis=1).astype(np.float32)
    mixer = ChannelMixer(block.shape[1], RATE)
    for _ in range(3):
        found = mixer.signs(block)
    assert found in (signs, tuple(-sign for sign in signs))


def test_a_short_phase_inversion_changes_nothing() -> None:
    """Four seconds of a phase effect within a recording: the decision rests on the last 30 s."""
    block = np.random.default_rng(0).standard_normal((4 * RATE, 1)).astype(np.float32)
    mixer = ChannelMixer(2, RATE)
    for _ in range(8):
        assert mixer.signs(np.repeat(block, 2, axis=1)) == (1, 1)
    assert mixer.signs(block * np.array([1, -1], np.float32)) == (1, 1)
    assert mixer.signs(np.repeat(block, 2, axis=1)) == (1, 1)


# Ordinary recordings: bit by bit as the mean was taken before out-of-phase recordings were looked for.


@pytest.mark.parametrize("container", ["wav 16 bit", "flac", "mp3"])
def test_libsndfile_samples_are_averaged_as_before(
    tmp_path: Path, encode: Encode, wide: Samples, container: str
) -> None:
    path = encode(wide, RATE, container, tmp_path / "a")
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    decimator = Decimator(2, 4)
    size = 4 * RATE // decimator.step * decimator.step
    blocks = [samples[start : start + size] for start in range(0, len(samples), size)]
    parts = [decimator.process(block, (1, 1), last=block is blocks[-1]) for block in blocks]
    assert np.array_equal(low_rate(path), np.concatenate(parts))
    mono = np.concatenate(list(read_audio(path, RATE)))
    assert np.array_equal(mono, samples[:, 0] / np.float32(2) + samples[:, 1] / np.float32(2))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("container", ["m4a aac", "m4a alac", "wavpack", "wma"])
def test_ffmpeg_samples_are_averaged_as_ffmpeg_does(
    tmp_path: Path, encode: Encode, wide: Samples, container: str, channels: int
) -> None:
    path = encode(wide[:, :channels], RATE, container, tmp_path / "a")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-threads", "1", "-i", path, "-map", "0:a:0"]
    command += ["-ac", "1", "-rematrix_maxval", "1", "-fflags", "+bitexact", "-c:a", "pcm_f32le", "-f", "f32le", "-"]
    mono = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, dtype="<f4")
    assert np.array_equal(np.concatenate(list(read_audio(path, RATE))), mono)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_opus_is_averaged_as_ffmpeg_does(tmp_path: Path, encode: Encode, wide: Samples, channels: int) -> None:
    """Here ffmpeg resamples before the mean is taken, which moves the last bit."""
    path = encode(np.repeat(wide, 3, axis=1)[:, :channels], RATE, "opus", tmp_path / "a")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-ac", "1", "-rematrix_maxval", "1"]
    command += ["-ar", "11025", "-c:a", "pcm_f32le", "-f", "f32le", "-"]
    mono = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, dtype="<f4")
    np.testing.assert_allclose(low_rate(path), mono, atol=1e-6)
