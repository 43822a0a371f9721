from __future__ import annotations

import numpy as np
import pytest

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.errors import StoneError
from stonecli.key import Key

pytest.importorskip("pedalboard")
pitch_fork = pytest.importorskip("stonecli_export.pitch_fork")

from stonecli_train.corpus.codecs import CODECS, GSM, coded, draw_codec  # noqa: E402

RATE = 22050
MUSIC = pitch_fork.play_key(Key(0, "major"), 0, 8.0, RATE)


@pytest.mark.parametrize(
    ("name", "kilobits"),
    [(name, rate) for name, codec in CODECS.items() for rate in (codec.kilobits[0], codec.kilobits[-1])] + [(GSM, 13)],
)
def test_codecs_preserve_length_and_tuning(name: str, kilobits: int) -> None:
    out = coded(MUSIC, RATE, name, kilobits)
    assert out.shape == MUSIC.shape
    assert out.dtype == np.float32
    assert not np.array_equal(out, MUSIC)
    assert np.std(out) == pytest.approx(np.std(MUSIC), rel=0.3)
    measured, before = (cents_of(frame_peaks(samples, RATE).resultant) for samples in (out, MUSIC))
    assert measured is not None
    assert before is not None
    assert abs(measured - before) < 3.0
    assert np.array_equal(out, coded(MUSIC, RATE, name, kilobits))


@pytest.mark.parametrize("name", list(CODECS))
def test_lower_bit_rates_have_larger_errors(name: str) -> None:
    noise = np.random.default_rng(1).standard_normal(4 * RATE).astype(np.float32) * 0.2
    spectra = []
    for kilobits in (CODECS[name].kilobits[0], CODECS[name].kilobits[-1]):
        spectra.append(np.abs(np.fft.rfft(coded(noise, RATE, name, kilobits))))
    truth = np.abs(np.fft.rfft(noise))
    worst, best = (float(np.mean((spectrum - truth) ** 2)) for spectrum in spectra)
    assert worst > 1.1 * best


def test_all_codecs_are_drawn() -> None:
    drawn = [draw_codec(np.random.default_rng(seed)) for seed in range(200)]
    assert {name for name, _ in drawn} == set(CODECS)
    assert all(kilobits in CODECS[name].kilobits for name, kilobits in drawn)


def test_the_error_of_an_encoder_is_one_line() -> None:
    with pytest.raises(StoneError, match="ffmpeg failed") as caught:
        coded(MUSIC, RATE, "mp3", -1)
    assert "Traceback" not in str(caught.value)
