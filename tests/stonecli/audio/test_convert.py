from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stonecli.errors import AudioError
from tests.fixture_types import Encode
from tests.tones import PITCH, SECONDS, low_rate, tone


class TestDecimation:
    @pytest.mark.parametrize("channels", [1, 2, 3])
    @pytest.mark.parametrize(
        ("rate", "factor"), [(8000, 1), (11025, 1), (22050, 2), (44100, 4), (48000, 4), (96000, 8), (192000, 17)]
    )
    def test_the_low_rate_keeps_frequencies_below_a_third_of_it(
        self, tmp_path: Path, rate: int, factor: int, channels: int
    ) -> None:
        time = np.arange(round(9.3 * rate)) / rate  # more than two blocks
        tones = [(55.0, 0.2), (440.0, 0.2), (3800.0, 0.2), (0.44 * rate, 0.3)]
        wave = np.sum([level * np.sin(2 * np.pi * hertz * time + hertz) for hertz, level in tones], axis=0)
        shares = np.linspace(0.5, 1.5, channels) if channels > 1 else np.ones(1)
        soundfile.write(tmp_path / "a.wav", wave[:, None] * shares, rate, subtype="FLOAT")
        low, samples = low_rate(tmp_path / "a.wav")
        assert low == rate / factor
        assert len(samples) == -(-len(time) // factor)
        expected = sum(
            level * np.sin(2 * np.pi * hertz * np.arange(len(samples)) / low + hertz)
            for hertz, level in tones[: 4 if factor == 1 else 3]
        )
        inner = slice(20, -20)
        assert np.abs(samples - expected)[inner].max() < 3e-4 * (1 if factor > 1 else 0.01)

    def test_block_boundaries_do_not_change_the_samples(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        noise = np.random.default_rng(0).standard_normal((44100 * 3 + 17, 2)).astype(np.float32) * 0.1
        soundfile.write(tmp_path / "a.wav", noise, 44100, subtype="FLOAT")
        _, whole = low_rate(tmp_path / "a.wav")
        for seconds in (1e-4, 0.01, 0.5):
            monkeypatch.setattr("stonecli.audio.source.BLOCK_SECONDS", seconds)
            _, pieces = low_rate(tmp_path / "a.wav")
            np.testing.assert_allclose(pieces, whole, atol=1e-6)

    @pytest.mark.parametrize("frames", [1, 2, 4, 63, 64, 65, 128, 129])
    def test_a_few_frames_at_the_low_rate(self, tmp_path: Path, frames: int) -> None:
        soundfile.write(tmp_path / "a.wav", np.full((frames, 2), 0.25), 44100, subtype="FLOAT")
        _, samples = low_rate(tmp_path / "a.wav")
        assert len(samples) == -(-frames // 4)
        assert 0 < np.abs(samples).max() < 0.3

    def test_nan_and_infinity_are_silence_at_the_low_rate(self, tmp_path: Path) -> None:
        samples = np.repeat(tone()[:, None], 2, axis=1)
        samples[5000], samples[20000, 1], samples[30000] = np.nan, np.inf, 1e30
        soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
        _, low = low_rate(tmp_path / "a.wav")
        assert np.isfinite(low).all()
        assert np.abs(low[8000:]).max() < 0.5  # 30000 / 4 and the reach of the filter


class TestEveryContainer:
    @pytest.mark.parametrize("min_rate", [11025, 22050])
    def test_every_container_at_the_low_rate(
        self, any_container: str, tones: Callable[[str], Path], min_rate: int
    ) -> None:
        rate, samples = low_rate(tones(any_container), min_rate)
        assert min_rate <= rate < 2 * min_rate
        assert len(samples) / rate == pytest.approx(SECONDS, abs=0.06)
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        assert spectrum.argmax() * rate / len(samples) == pytest.approx(PITCH, abs=1.0)

    def test_an_unreadable_file_raises_at_the_low_rate(self, tmp_path: Path, tones: Callable[[str], Path]) -> None:
        (tmp_path / "a.flac").write_bytes(b"")
        with pytest.raises(AudioError, match="empty"):
            low_rate(tmp_path / "a.flac")
        (tmp_path / "b.flac").write_bytes(tones("flac").read_bytes()[:9000])
        with pytest.raises(AudioError, match="truncated"):
            low_rate(tmp_path / "b.flac")

    @pytest.mark.parametrize(
        ("rate", "low"), [(44100, 11025), (48000, 12000), (22050, 11025), (32000, 16000), (8000, 8000)]
    )
    def test_ffmpeg_decodes_at_the_file_rate_over_an_integer(
        self, tmp_path: Path, encode: Encode, rate: int, low: int
    ) -> None:
        time = np.arange(round(9.3 * rate)) / rate
        path = encode((0.2 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), rate, "m4a alac", tmp_path / "a")
        found, samples = low_rate(path)
        assert found == low
        assert len(samples) == pytest.approx(9.3 * low, abs=2)
        expected = 0.2 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / low)
        assert np.abs(samples - expected)[200:-200].max() < 1e-3
