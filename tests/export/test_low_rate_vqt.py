from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from stonecli.model.session import cpu_session

torch = pytest.importorskip("torch")
helper = pytest.importorskip("onnx").helper

from stonecli_export.graph_builder import GraphBuilder  # noqa: E402
from stonecli_export.low_rate_vqt import LowRateVQT, add_power  # noqa: E402
from stonecli_train.checkpoint import Checkpoint  # noqa: E402
from stonecli_train.vqt import VQT, VQTConfig  # noqa: E402

Floats = npt.NDArray[np.float32]
VQT_11 = LowRateVQT(VQTConfig(), 84)


def power_of(audio: Floats, vqt: LowRateVQT = VQT_11) -> Floats:
    """[batch, frames, bins] of the graph."""
    graph = GraphBuilder()
    power = add_power(graph, vqt)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "power",
            [helper.make_tensor_value_info("audio", 1, ["batch", "samples"])],
            [helper.make_tensor_value_info(power, 1, ["batch", "frames", "bins"])],
            list(graph.initializers.values()),
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    model.ir_version = 10
    session = cpu_session(model.SerializeToString())
    found: Floats = session.run(None, {"audio": audio})[0]
    return found


def music(seconds: float, rate: int = 22050) -> Floats:
    """Chords over noise that falls with frequency."""
    count = round(seconds * rate)
    time = np.arange(count) / rate
    spectrum = np.fft.rfft(np.random.default_rng(3).standard_normal(count))
    spectrum /= np.arange(1, len(spectrum) + 1)
    noise = np.fft.irfft(spectrum, count)
    notes = 27.5 * 2 ** (np.array([3, 15, 27, 34, 39, 43, 51, 58, 63, 70, 75, 82]) / 12)
    chords = sum(
        np.sin(2 * np.pi * note * time + note) * (0.6 + 0.4 * np.sin(time * n)) for n, note in enumerate(notes)
    )
    return (0.05 * chords + 0.1 * noise / np.abs(noise).max()).astype(np.float32)


def decibels(power: Floats) -> Floats:
    return (10 * np.log10(np.sqrt(power) + 1e-10)).astype(np.float32)


@pytest.mark.parametrize("n_bins", [84, 72, 60])
def test_it_equals_the_transform_within_hundredths_of_a_decibel(n_bins: int) -> None:
    audio = music(12.0)
    with torch.inference_mode():
        expected = VQT().magnitude(torch.from_numpy(audio[None]))[0, :n_bins].numpy().T
    low = soxr.resample(audio, 22050, 11025, quality="HQ")
    found = power_of(low[None], LowRateVQT(VQTConfig(), n_bins))[0]
    assert found.shape == (len(low) // 256 + 1, n_bins)
    inner = slice(10, len(found) - 10)  # the original's own filters ring at the edges
    difference = np.abs(decibels(found) - decibels(expected[: len(found)] ** 2))[inner]
    loud = decibels(expected**2)[: len(found)][inner] > decibels(expected**2).max() - 25
    assert difference[loud].mean() < 0.02
    assert np.quantile(difference[loud], 0.99) < 0.1


@pytest.mark.parametrize("samples", [VQT_11.min_samples, 16640, 16895, 16896, 40_001])
def test_it_has_as_many_frames_as_the_transform(samples: int) -> None:
    batch = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    found = power_of(batch)
    assert found.shape == (2, samples // 256 + 1, 84)
    np.testing.assert_allclose(power_of(batch[1:])[0], found[1], rtol=1e-3, atol=1e-6 * found.max())


def test_a_sine_peaks_in_its_bin() -> None:
    time = np.arange(4 * 11025) / 11025
    for index in range(84):
        sine = np.sin(2 * np.pi * 27.5 * 2 ** (index / 12) * time).astype(np.float32)
        power = power_of(sine[None])[0, 85]
        assert power.argmax() == index
        assert np.sqrt(power[index]) == pytest.approx(
            0.5 * np.sqrt(VQTConfig().kernel_length(index)), rel=0.01
        )  # half a sine is a complex exponential; the kernel's weights sum to the root of its length


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({"frames_averaged": 4}, True),
        ({"frames_averaged": 8, "corrects_tuning": True}, True),
        ({"corrects_tuning": True}, True),
        ({}, False),  # as published
        ({"frames_averaged": 4, "vqt": VQTConfig(fmin=55.0, n_bins=87)}, False),
        ({"frames_averaged": 4, "vqt": VQTConfig(hop_length=256)}, False),
    ],
    ids=str,
)
def test_which_models_run_at_half_the_rate(
    hand_made: Callable[..., Checkpoint], changes: dict[str, Any], possible: bool
) -> None:
    assert (LowRateVQT.of(replace(hand_made(), **changes)) is not None) == possible


def test_a_half_rate_model_agrees_with_its_checkpoint(hand_made: Callable[..., Checkpoint], tmp_path: Path) -> None:
    from stonecli.key import Key
    from stonecli.model.session import KeyModel
    from stonecli_export.context import context_frames
    from stonecli_export.onnx_file import AudioNetwork, export_checkpoint
    from stonecli_export.pitch_fork import play_key
    from stonecli_train.checkpoint import save_checkpoint

    for rows in (1, 2):
        checkpoint = hand_made(rows, frames_averaged=4)
        save_checkpoint(checkpoint, tmp_path / "a.pt")
        report = export_checkpoint(tmp_path / "a.pt", tmp_path / "a.onnx")
        model = KeyModel(report.path, device="cpu")
        assert model.info.sample_rate == 11025
        network = AudioNetwork(checkpoint, context_frames(checkpoint)).eval()
        for key in (Key(0, "major"), Key(5, "major"), Key(9, "major")):
            tune = play_key(key, 1, 10.0, 22050)
            with torch.inference_mode():
                expected = network(torch.from_numpy(tune[None])).numpy()
            answer = model(soxr.resample(tune, 22050, 11025)[None])
            assert np.abs(answer.classes - expected).max() < 0.05  # of a network with a temperature of 0.1
            assert key in model.info.classes[int(answer.classes[0].argmax())]
        shortest = np.zeros((1, model.info.minimum_samples), np.float32)
        assert model(shortest).classes.shape == (1, 12 * rows)
