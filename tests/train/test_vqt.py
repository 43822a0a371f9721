from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stonecli_train.vqt import LOWPASS_TAPS, VQT, VQTConfig, lowpass_filter, octave_kernels  # noqa: E402

DEFAULT = VQTConfig()
CONFIGS = {
    "published": DEFAULT,
    "11 kHz, 84 bins": VQTConfig(sample_rate=11025, hop_length=256, n_bins=84),
    "hops that do not divide a block": VQTConfig(hop_length=384, fmin=1000.0, n_bins=36),
    "an octave in part, hop of a block": VQTConfig(sample_rate=16000, hop_length=128, fmin=110.0, n_bins=67),
    "hop of more than a block everywhere": VQTConfig(hop_length=1000, fmin=1100.0, n_bins=30),
}


@pytest.fixture(scope="module")
def vqt() -> VQT:
    return VQT().eval()


def noise(samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return (0.3 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def tones(frequencies: list[float], seconds: float = 1.9, phase: float = 0.0) -> npt.NDArray[np.float32]:
    time = np.arange(round(seconds * DEFAULT.sample_rate)) / DEFAULT.sample_rate
    return np.sum([np.sin(2 * np.pi * f * time + phase) for f in frequencies], axis=0).astype(np.float32)


def run(module: VQT, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        return module(torch.from_numpy(np.atleast_2d(audio))).numpy()


def reference_magnitude(audio: npt.NDArray[np.float32], config: VQTConfig) -> npt.NDArray[np.float64]:
    """The transform as its papers say it: every frame of every bin is one correlation with the decimated signal."""
    q = 1 / (2 ** (1 / config.bins_per_octave) - 1)
    frames = len(audio) // config.hop_length + 1
    out = np.zeros((config.n_bins, frames))
    signal, hop = audio.astype(np.float64), config.hop_length
    top = config.n_bins
    while top > 0:
        mirrored = np.pad(signal, 64, mode="reflect")
        for offset in range(1, min(config.bins_per_octave, top) + 1):
            # The kernel is that of the highest octave, for the signal is decimated instead.
            frequency = config.fmin * 2 ** ((config.n_bins - offset) / config.bins_per_octave)
            length = int(np.ceil(q * config.sample_rate / frequency))
            time = np.arange(length) - (length + 1) // 2
            kernel = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)) * np.exp(
                2j * np.pi * frequency / config.sample_rate * time
            )
            kernel /= np.abs(kernel).sum()
            true_frequency = config.fmin * 2 ** ((top - offset) / config.bins_per_octave)
            scale = np.sqrt(np.ceil(q * config.sample_rate / true_frequency))
            first = 64 - (length + 1) // 2
            for frame in range(frames):
                piece = mirrored[frame * hop + first : frame * hop + first + length]
                out[top - offset, frame] = scale * abs(np.sum(piece * np.conj(kernel[: len(piece)])))
        top -= config.bins_per_octave
        padded = np.concatenate([np.zeros(127), signal, np.zeros(256)])
        taps = lowpass_filter()
        signal = np.array([padded[2 * n : 2 * n + 256] @ taps for n in range(len(signal) // 2)])
        hop //= 2
    return out


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("extra", [0, 1, 333])
def test_it_equals_a_plain_correlation(config: VQTConfig, extra: int) -> None:
    audio = noise(config.min_samples + 7 * config.hop_length + extra)
    expected = reference_magnitude(audio, config)
    module = VQT(config)
    with torch.inference_mode():
        actual = module.magnitude(torch.from_numpy(audio[None]))[0].numpy()
    np.testing.assert_allclose(actual, expected, atol=3e-6 * expected.max())
    decibels = 10 * np.log10(np.maximum(expected, 1e-10))
    log = np.maximum(decibels, decibels.max() - 80) / 80 + 1
    np.testing.assert_allclose(run(module, audio)[0], log, atol=2e-4)


def test_it_equals_the_original(vqt: VQT, golden: dict[str, npt.NDArray[np.float32]]) -> None:
    difference = np.abs(run(vqt, golden["audio"]) - golden["vqt"]).max()
    assert difference < 2e-4


@given(
    k=st.integers(0, 98),
    phase=st.floats(0, 6.28),
    cents=st.floats(-25, 25),
    amplitude=st.sampled_from([1e-3, 0.1, 1.0, 10.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_sine_peaks_in_its_bin(k: int, phase: float, cents: float, amplitude: float) -> None:
    vqt = VQT()
    frequency = DEFAULT.fmin * 2 ** ((k + cents / 100) / 12)
    answer = run(vqt, amplitude * tones([frequency], phase=phase))[0]
    assert answer[:, answer.shape[1] // 2].argmax() == k


@pytest.mark.parametrize("fundamental_bin", [12, 25, 40])
def test_a_semitone_up_is_one_bin_up(vqt: VQT, fundamental_bin: int) -> None:
    low = [DEFAULT.fmin * 2 ** (fundamental_bin / 12) * harmonic for harmonic in (1, 2, 3, 4, 5, 6)]
    before = run(vqt, tones(low))[0][:, 40]
    after = run(vqt, tones([f * 2 ** (1 / 12) for f in low]))[0][:, 40]
    strong = before[:-1] > before.max() - 0.16  # 13 dB below the loudest bin; weaker ones are where partials interfere
    assert strong.sum() > 5
    np.testing.assert_allclose(after[1:][strong], before[:-1][strong], atol=0.02)
    assert np.abs(after[:-1][strong] - before[:-1][strong]).max() > 0.2  # in place it does differ


@given(exponent=st.integers(-12, 12))
@settings(max_examples=15, deadline=None)
def test_a_gain_adds_a_constant(exponent: int) -> None:
    vqt, audio, gain = VQT(), noise(30_000), 2.0**exponent
    shift = 10 * np.log10(gain) / 80
    np.testing.assert_allclose(run(vqt, np.float32(gain) * audio), run(vqt, audio) + shift, atol=1e-5)


def test_magnitudes_below_the_clamp_are_equal(vqt: VQT) -> None:
    silence = run(vqt, np.zeros(20_000, np.float32))
    assert silence == pytest.approx(1 - 100 / 80)  # 1e-10 is -100 dB
    np.testing.assert_array_equal(run(vqt, np.float32(1e-20) * noise(20_000)), silence)


def test_the_floor_is_80_decibels_below_the_loudest_bin(vqt: VQT) -> None:
    audio = np.concatenate([tones([440.0]), np.zeros(40_000, np.float32)])
    for gain in (1.0, 64.0):
        answer = run(vqt, np.float32(gain) * audio)[0]
        assert answer.min() == pytest.approx(answer.max() - 1, abs=1e-6)
        assert (answer[:, -1] == answer.min()).all()
        assert (answer == answer.min()).mean() < 0.9


def test_each_item_has_its_own_floor(vqt: VQT) -> None:
    audio = np.concatenate([tones([440.0]), np.zeros(40_000, np.float32)])
    answer = run(vqt, np.stack([audio, np.float32(1 / 1024) * audio]))
    np.testing.assert_allclose(answer.min((1, 2)), answer.max((1, 2)) - 1, atol=1e-6)


def test_items_of_a_batch_are_independent(vqt: VQT) -> None:
    batch = np.stack([noise(25_001, seed) * gain for seed, gain in enumerate([1, 1e-3, 30, 0.2])]).astype(np.float32)
    together = run(vqt, batch)
    for item, answer in zip(batch, together, strict=True):
        np.testing.assert_allclose(run(vqt, item)[0], answer, atol=2e-5)


@given(length=st.integers(DEFAULT.min_samples, 60_000), batch=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_frames_are_counted_exactly(length: int, batch: int) -> None:
    answer = run(VQT(), np.tile(noise(length), (batch, 1)))
    assert answer.shape == (batch, 99, length // 512 + 1)
    assert answer.dtype == np.float32
    assert np.isfinite(answer).all()


@given(length=st.integers(30_000, 50_000), extra=st.integers(1, 20_000))
@settings(max_examples=15, deadline=None)
def test_a_frame_does_not_depend_on_the_distant_future(length: int, extra: int) -> None:
    vqt, audio = VQT(), noise(length + extra)
    early, high = slice(0, 12), slice(72, None)  # frames and bins that need little of the future
    with torch.inference_mode():
        whole = vqt.magnitude(torch.from_numpy(audio[None]))[0, high, early].numpy()
        part = vqt.magnitude(torch.from_numpy(audio[None, :length]))[0, high, early].numpy()
    np.testing.assert_allclose(part, whole, atol=1e-5 * whole.max())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_too_short_audio_is_refused(config: VQTConfig) -> None:
    module = VQT(config)
    assert run(module, noise(config.min_samples)).shape == (
        1,
        config.n_bins,
        config.min_samples // config.hop_length + 1,
    )
    with pytest.raises(ValueError, match="too few"):
        run(module, noise(config.min_samples - 1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_bins": 108}, "above half the sample rate"),
        ({"fmin": 60.0}, "above half the sample rate"),
        ({"hop_length": 500}, "must be a multiple of 256"),
        ({"n_bins": 84}, "is too small"),
        ({"bins_per_octave": 24, "n_bins": 190}, "is too small"),
        ({"n_bins": 11}, "at least one octave"),
        ({"hop_length": 0}, "above 0"),
        ({"sample_rate": -22050}, "above 0"),
        ({"fmin": float("nan")}, "above 0"),
        ({"bins_per_octave": 0}, "above 0"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(changes: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        VQTConfig(**changes)  # type: ignore[arg-type]


def test_the_gradient_reaches_the_audio(vqt: VQT) -> None:
    audio = torch.from_numpy(noise(20_000)[None]).requires_grad_()
    vqt(audio).mean().backward()
    assert audio.grad.dtype == torch.float32
    assert torch.isfinite(audio.grad).all()
    assert (audio.grad != 0).float().mean() > 0.99


def test_the_transform_has_no_parameters_and_no_state(vqt: VQT) -> None:
    assert not list(vqt.parameters())
    assert not vqt.state_dict()


def test_kernels_are_normalized_windows() -> None:
    kernels = octave_kernels(DEFAULT)
    np.testing.assert_allclose(np.abs(kernels).sum(1), 1)
    time = np.arange(128)
    for row, kernel in enumerate(kernels):
        frequency = DEFAULT.fmin * 2 ** ((87 + row) / 12)
        wave = np.exp(2j * np.pi * frequency / DEFAULT.sample_rate * time)
        assert abs(np.vdot(kernel, wave)) == pytest.approx(1)


def test_the_lowpass_passes_half_the_band() -> None:
    taps = lowpass_filter()
    assert len(taps) == LOWPASS_TAPS
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-12)  # linear phase
    frequency = np.linspace(0, 1, 2001)  # of the Nyquist frequency
    response = np.abs(np.exp(-1j * np.pi * frequency[:, None] * np.arange(LOWPASS_TAPS)) @ taps)
    np.testing.assert_allclose(response[frequency < 0.48], 1, atol=0.01)
    assert response[frequency > 0.52].max() < 0.01
