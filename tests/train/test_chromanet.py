from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stonecli_export.published import read_checkpoint  # noqa: E402
from stonecli_train.chromanet import (  # noqa: E402
    ChromaNet,
    ChromaNetConfig,
    ConvNeXtBlock,
    FrameNorm,
    ItemNorm,
    average_frames,
    block_levels,
    octave_pool,
)

Array = npt.NDArray[np.float64]
SMALL: dict[str, Any] = {"n_bins": 24, "out_channels": (3, 2), "kernels": (5, 3)}


def random_network(seed: int = 0, **config: Any) -> ChromaNet:
    """A network whose every parameter and running statistic is random, so that none has a special value."""
    torch.manual_seed(seed)
    network = ChromaNet(ChromaNetConfig(**config)).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.3, 3.0)
            elif value.is_floating_point():
                value.add_(0.5 * torch.randn_like(value))
    return network


# --- the published networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", ["semisupervised_ks_mode.pt", "semitone_ks.pt", "skey.pt", "first_default.pt"])
def test_it_equals_the_original(checkpoint: str, shared: Any, golden: dict[str, Any]) -> None:
    folder = "model" if checkpoint == "first_default.pt" else "checkpoints"
    read = read_checkpoint(shared / folder / checkpoint)
    features = torch.from_numpy(golden["vqt"])[:, : read.chromanet.n_bins]
    with torch.inference_mode():
        answer = read.network()(average_frames(features, read.frames_averaged)[:, None]).numpy()
    assert np.abs(answer - golden[f"prob/{checkpoint}"]).max() < 1e-5


@pytest.mark.parametrize(("rows", "normalization"), [(1, "affine"), (2, "plain")])
def test_it_has_the_published_size(rows: int, normalization: str) -> None:
    network = ChromaNet(ChromaNetConfig(rows=rows, normalization=normalization))  # type: ignore[arg-type]
    norms = [module for module in network.modules() if isinstance(module, FrameNorm)]
    in_norms = sum(value.numel() for norm in norms for value in norm.parameters())
    total = sum(value.numel() for value in network.parameters())
    assert in_norms == (0 if normalization == "plain" else 84 * 2 * (128 + 1 + 2 + 3 + 40 + 40 + 30 + 10))
    assert 46_500 < total - in_norms < 47_500


# --- against plain formulas -------------------------------------------------------------------------------------------


def plain_conv(x: Array, kernel: Array, bias: Array) -> Array:
    """Depthwise correlation with replicated edges, [channels, bins, frames]."""
    half = kernel.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half)), mode="edge")
    out = np.zeros_like(x)
    for c, b, t in np.ndindex(*x.shape):
        out[c, b, t] = (padded[c, b : b + 2 * half + 1, t : t + 2 * half + 1] * kernel[c, 0]).sum() + bias[c]
    return out


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def plain_norm(x: Array, weights: dict[str, Array], prefix: str) -> Array:
    if f"{prefix}.weight" not in weights:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    mean, variance = x.mean((0, 1), keepdims=True), x.var((0, 1), keepdims=True)
    scale, offset = weights[f"{prefix}.weight"].T[:, :, None], weights[f"{prefix}.bias"].T[:, :, None]
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset


def plain_head(x: Array, w: dict[str, Array]) -> Array:
    """The circular head for one item [channels, bins], its frames averaged: [width, 12]."""
    folded = plain_norm(np.array([x[:, pitch::12].ravel() for pitch in range(12)]).T, w, "head.norm")
    mixed = gelu(w["head.mix.weight"][:, :, 0, 0] @ folded + w["head.mix.bias"][:, None])
    around = w["head.around.weight"][:, :, :, 0]  # [out, in, interval]
    context = np.array([np.einsum("oik,ik->o", around, np.roll(mixed, -pitch, axis=1)) for pitch in range(12)]).T
    return mixed + gelu(context + w["head.around.bias"][:, None])


def plain_gate(levels: list[Array], w: dict[str, Array]) -> float:
    normed = np.clip((np.concatenate(levels) - w["gate.mean"]) / w["gate.deviation"], -5.0, 5.0)
    hidden = gelu(w["gate.hidden.weight"] @ normed + w["gate.hidden.bias"])
    return float(1.0 / (1.0 + np.exp(-(w["gate.out.weight"] @ hidden + w["gate.out.bias"]))[0]))


def plain_network(x: Array, network: ChromaNet) -> Array:
    """ChromaNet in eval mode for one item [bins, frames], written down from the papers."""
    config = network.config
    w = {name: value.double().numpy() for name, value in network.state_dict().items()}
    x = x[None]
    levels: list[Array] = []
    for block in range(len(config.kernels)):
        down, conv = f"time_downsampling_blocks.{block}", f"convnext_blocks.{block}"
        x = plain_norm(x, w, f"{down}.norm")
        kernel = w[f"{down}.conv.weight"][:, :, 0]  # [out, in, 2]
        pairs = np.stack([x[:, :, 0 : x.shape[2] // 2 * 2 : 2], x[:, :, 1::2][:, :, : x.shape[2] // 2]], axis=-1)
        x = gelu(np.einsum("oik,ibtk->obt", kernel, pairs) + w[f"{down}.conv.bias"][:, None, None])
        branch = plain_conv(x, w[f"{conv}.dwconv.weight"], w[f"{conv}.dwconv.bias"])
        branch = plain_norm(branch, w, f"{conv}.norm").transpose(1, 2, 0)
        branch = gelu(branch @ w[f"{conv}.pwconv1.weight"].T + w[f"{conv}.pwconv1.bias"])
        branch = w[f"{conv}.gamma"] * (branch @ w[f"{conv}.pwconv2.weight"].T + w[f"{conv}.pwconv2.bias"])
        x = x + branch.transpose(2, 0, 1)
        levels += [x.mean(2).mean(1), x.mean(2).std(1)]
        if config.gate_statistics == 4:
            levels += [x.mean(1).std(1), x.std(2).mean(1)]
    if config.head_channels:
        chroma = plain_head(x.mean(2), w)
    else:
        chroma = np.array([x[:, pitch::12].mean((1, 2)) for pitch in range(12)]).T  # [channels, 12]
    scores = w["classifier.weight"][:, :, 0, 0] @ chroma + w["classifier.bias"][:, None]
    if config.rows == 2:
        scores -= w["batch_norm.running_mean"][:, None]
        scores /= np.sqrt(w["batch_norm.running_var"][:, None] + 1e-5)
    scores = scores * plain_gate(levels, w) if config.gate_channels else scores
    exponentials = np.exp(scores.ravel() / config.temperature - (scores / config.temperature).max())
    return exponentials / exponentials.sum()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("normalization", ["affine", "plain"])
@pytest.mark.parametrize("frames", [4, 11])
@pytest.mark.parametrize("head", [0, 5])
def test_the_network_equals_a_plain_computation(rows: int, normalization: str, frames: int, head: int) -> None:
    network = random_network(rows=rows, normalization=normalization, temperature=1.7, head_channels=head, **SMALL)
    x = torch.randn(2, 1, 24, frames)
    with torch.inference_mode():
        answer = network(x).numpy()
    expected = [plain_network(item[0].double().numpy(), network) for item in x]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert np.ptp(expected, axis=1).min() > 0.01  # not all the same, where anything would agree


@pytest.mark.parametrize("frames", [8, 11, 15])
@pytest.mark.parametrize("dense", [1, 2, 3])
def test_dense_blocks_compute_the_result_of_every_shift(dense: int, frames: int) -> None:
    """They are compared without norms, which depend on all frames, and without the edges, which are replicated."""
    shape: dict[str, Any] = {"n_bins": 24, "out_channels": (3, 4, 2), "kernels": (1, 1, 1)}
    network, other = random_network(**shape), random_network(dense_blocks=dense, **shape)
    for each in (network, other):
        for module in (*each.time_downsampling_blocks, *each.convnext_blocks):
            module.norm = torch.nn.Identity()
    other.load_state_dict(network.state_dict())
    x = torch.randn(2, 1, 24, frames)
    halved = 1 << (3 - dense)  # a shift by less is one that the first blocks have
    coarse = frames // halved
    shifts = range(coarse - (1 << dense) + 1)
    with torch.inference_mode():
        expected = [network.blocks(x[..., shift * halved :])[-1][..., :1] for shift in shifts]
        answer = other.blocks(x)[-1]
    torch.testing.assert_close(answer, torch.cat(expected, dim=-1))
    assert answer.shape[-1] == len(shifts)


@pytest.mark.parametrize(("head", "statistics"), [(0, 2), (5, 2), (0, 4)])
def test_a_gated_network_equals_a_plain_computation(head: int, statistics: Literal[2, 4]) -> None:
    network = random_network(gate_channels=3, gate_statistics=statistics, head_channels=head, temperature=0.7, **SMALL)
    x = torch.randn(3, 1, 24, 9)
    with torch.inference_mode():
        answer = network(x).numpy()
        levels = block_levels(network.blocks(x), statistics)
        assert network.gate is not None
        gates = network.gate(levels)
        ungated = network.normalize(network.scores(x))
        np.testing.assert_allclose(network.logits(x), ungated * gates, atol=1e-6)
    assert 0 < float(gates.min()) < float(gates.max()) < 1
    expected = [plain_network(item[0].double().numpy(), network) for item in x]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_with_a_closed_gate_all_keys_are_equally_probable() -> None:
    network = random_network(gate_channels=3, **SMALL)
    assert network.gate is not None
    with torch.no_grad():
        network.gate.out.weight.zero_()
        network.gate.out.bias.fill_(-50.0)
    np.testing.assert_allclose(network(torch.randn(1, 1, 24, 9)).detach().numpy(), 1 / 24, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_item_norm_is_over_channel_bin_and_frame(layout: Any) -> None:
    x = 3 * torch.randn(2, 4, 12, 5) + 7
    mean = x.mean((1, 2, 3), keepdim=True)
    expected = (x - mean) / torch.sqrt(((x - mean) ** 2).mean((1, 2, 3), keepdim=True) + 1e-5)
    normed = ItemNorm()(x.to(memory_format=layout))
    torch.testing.assert_close(normed, expected)
    assert normed.is_contiguous(memory_format=layout)


def test_frame_norm_is_over_bins_and_channels_of_each_frame() -> None:
    norm = FrameNorm(12, 4)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = 3 * torch.randn(2, 4, 12, 5) + 7
    answer = norm(x)
    for item in range(2):
        for frame in range(5):
            values = x[item, :, :, frame]
            plain = (values - values.mean()) / torch.sqrt(values.var(unbiased=False) + 1e-5)
            torch.testing.assert_close(answer[item, :, :, frame], plain * norm.weight.T + norm.bias.T)


def test_octave_pool_is_the_mean_of_equal_pitch_classes() -> None:
    x = torch.randn(2, 3, 36, 4)
    pooled = octave_pool(x)
    for pitch in range(12):
        torch.testing.assert_close(
            pooled[:, :, pitch], (x[:, :, pitch] + x[:, :, pitch + 12] + x[:, :, pitch + 24]) / 3
        )


@pytest.mark.parametrize(("frames", "count", "groups"), [(8, 4, 2), (11, 4, 2), (3, 4, 0), (5, 1, 5)])
def test_average_frames_drops_an_incomplete_group(frames: int, count: int, groups: int) -> None:
    x = torch.randn(2, 6, frames)
    answer = average_frames(x, count)
    assert answer.shape == (2, 6, groups)
    for group in range(groups):
        torch.testing.assert_close(answer[:, :, group], x[:, :, group * count : (group + 1) * count].mean(-1))


# --- properties -------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), frames=st.integers(4, 40), batch=st.integers(1, 4), rows=st.sampled_from([1, 2]))
@settings(max_examples=25, deadline=None)
def test_the_answer_is_a_distribution(seed: int, frames: int, batch: int, rows: int) -> None:
    network = random_network(seed, rows=rows, temperature=0.2, **SMALL)
    with torch.inference_mode():
        answer = network(torch.randn(batch, 1, 24, frames))
        logits = network.logits(torch.zeros(1, 1, 24, frames))
    assert answer.shape == (batch, 12 * rows)
    assert (answer >= 0).all()
    torch.testing.assert_close(answer.sum(1), torch.ones(batch))
    assert torch.isfinite(logits).all()


def melody(shift: int) -> Any:
    """Features with notes in the middle bins only, moved up by ``shift`` bins; the edges stay empty."""
    x = torch.full((1, 1, 84, 140), -0.5)
    x[:, :, 32 + shift : 44 + shift] = torch.randn(1, 1, 12, 140, generator=torch.Generator().manual_seed(5))
    return x


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("normalization", ["affine", "plain"])
def test_a_semitone_rotates_the_profile_and_an_octave_does_not(rows: int, normalization: str) -> None:
    network = random_network(3, rows=rows, normalization=normalization, temperature=0.3)
    for module in network.modules():
        if isinstance(module, FrameNorm):  # learned per bin: equivariance is only near; at its start it is exact
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(module.bias)
    with torch.inference_mode():
        profile, *moved = (network(melody(shift))[0].reshape(rows, 12) for shift in (0, -12, 12, 1, 5))
    assert (profile.max() - profile.min()) > 0.01
    assert not torch.allclose(profile, profile.roll(1, 1), atol=1e-2)
    for shift, answer in zip((-12, 12, 1, 5), moved, strict=True):
        torch.testing.assert_close(answer, profile.roll(shift, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("normalization", ["affine", "plain"])
def test_peak_normalization_has_no_effect(normalization: str) -> None:
    """A gain is a constant added to the log-VQT; the first norm takes it away."""
    network = random_network(4, normalization=normalization)
    x = torch.rand(2, 1, 84, 140)
    with torch.inference_mode():
        torch.testing.assert_close(network(x + 0.4), network(x), atol=1e-4, rtol=0)


def test_items_of_a_batch_are_independent_in_evaluation() -> None:
    network = random_network(6)
    x = torch.randn(3, 1, 84, 150)
    with torch.inference_mode():
        together, alone = network(x), torch.cat([network(item[None]) for item in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config", [{}, SMALL, {"out_channels": (4,), "kernels": (3,)}, {"out_channels": (2,) * 4, "kernels": (1,) * 4}]
)
def test_min_frames_is_enough_and_one_less_is_not(config: dict[str, Any]) -> None:
    network = random_network(**config)
    least, bins = network.config.min_frames, network.config.n_bins
    with torch.inference_mode():
        assert torch.isfinite(network(torch.randn(1, 1, bins, least))).all()
        with pytest.raises(RuntimeError):
            network(torch.randn(1, 1, bins, least - 1))


@pytest.mark.parametrize("head", [0, 6])
def test_the_gradient_reaches_every_parameter(head: int) -> None:
    network = random_network(7, drop_path=0.0, head_channels=head).train()
    answer = network(torch.randn(4, 1, 84, 130))
    answer[:, 0].log().sum().backward()
    # Batch norm subtracts the mean, so the classifier's bias has no effect.
    dead = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert set(dead) <= {"classifier.bias"}


# --- stochastic depth -------------------------------------------------------------------------------------------------


def test_in_evaluation_no_path_is_dropped() -> None:
    with_drop, without = random_network(8, drop_path=0.9, **SMALL), random_network(8, drop_path=0.0, **SMALL)
    x = torch.randn(2, 1, 24, 8)
    with torch.inference_mode():
        first = with_drop(x)
        torch.testing.assert_close(first, with_drop(x), atol=0, rtol=0)
        torch.testing.assert_close(first, without(x), atol=0, rtol=0)


def test_in_training_whole_branches_are_dropped_without_bias() -> None:
    torch.manual_seed(9)
    probability, items = 0.3, 4000
    block = ConvNeXtBlock(2, 3, probability, ItemNorm())
    x = torch.randn(1, 2, 12, 3)
    with torch.no_grad():
        branch = block.eval()(x) - x
        out = block.train()(x.expand(items, -1, -1, -1)) - x
    dropped = (out == 0).flatten(1).all(1)
    torch.testing.assert_close(out[~dropped], (branch / (1 - probability)).expand(int((~dropped).sum()), -1, -1, -1))
    five_sigma = 5 * math.sqrt(probability * (1 - probability) / items)
    assert dropped.float().mean().item() == pytest.approx(probability, abs=five_sigma)
    mean_error = ((out.mean(0) - branch[0]).norm() / branch.norm()).item()
    assert mean_error < five_sigma / (1 - probability)


def test_a_network_in_training_varies() -> None:
    network = random_network(10, rows=1, drop_path=0.5, **SMALL).train()
    x = torch.randn(1, 1, 24, 8)
    answers = {tuple(network(x)[0].tolist()) for _ in range(20)}
    assert len(answers) > 1


# --- hyper-parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rows": 3}, "rows"),
        ({"rows": 0}, "rows"),
        ({"normalization": "batch"}, "normalization"),
        ({"n_bins": 85}, "n_bins"),
        ({"n_bins": 0}, "n_bins"),
        ({"n_bins": -12}, "n_bins"),
        ({"out_channels": (2, 3)}, "one entry per block"),
        ({"out_channels": (), "kernels": ()}, "one entry per block"),
        ({"out_channels": (0,), "kernels": (3,)}, "channels"),
        ({"out_channels": (2,), "kernels": (4,)}, "odd"),
        ({"out_channels": (2,), "kernels": (-1,)}, "odd"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"head_channels": -1}, "head_channels"),
        ({"gate_channels": -1}, "gate_channels"),
        ({"gate_statistics": 3}, "gate_statistics"),
        ({"dense_blocks": -1}, "dense_blocks"),
        ({"dense_blocks": 8}, "dense_blocks"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"drop_path": -0.1}, "drop_path"),
    ],
)
def test_hyper_parameters_that_do_not_fit_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ChromaNetConfig(**changes)
