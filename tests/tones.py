"""A tone of 523 Hz as a test recording, and how to recognize it after decoding."""

from pathlib import Path

import numpy as np
import pytest

from stonecli.audio.decode import open_audio, read_audio
from tests.fixture_types import Samples

RATE = 22050
SECONDS = 3.0
PITCH = 523.25


def tone(rate: int = 44100, seconds: float = SECONDS, pitch: float = PITCH) -> Samples:
    time = np.arange(round(rate * seconds)) / rate
    return (0.4 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def decoded(path: Path) -> Samples:
    return np.concatenate(list(read_audio(path, RATE)))


def pitch_of(samples: Samples) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * RATE / len(samples))


def assert_is_the_tone(samples: Samples, seconds: float = SECONDS, slack: float = 0.06) -> None:
    assert samples.dtype == np.float32
    assert len(samples) / RATE == pytest.approx(seconds, abs=slack)  # lossy formats pad to whole frames
    assert pitch_of(samples) == pytest.approx(PITCH, abs=1.0)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.1)


def low_rate(path: Path, min_rate: int = 11025) -> tuple[float, Samples]:
    """The recording, decimated as for a model, and its rate."""
    audio = open_audio(path, min_rate)
    return audio.rate, np.concatenate(list(audio.blocks))
