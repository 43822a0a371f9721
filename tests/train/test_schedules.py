from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402
from stonecli_train.config import OptimizerConfig, default_config  # noqa: E402
from stonecli_train.schedules import clip_gradients, learning_rate, new_optimizer, weight_decay  # noqa: E402

# Values that the schedulers of the original code return with its defaults for 100 epochs of 512 steps.
PUBLISHED = {
    0: (0.001, 0.04),
    1: (0.0009999999990396983, 0.04000000000339521),
    511: (0.0009997492660021924, 0.04000088656952788),
    10240: (0.0009026399970090912, 0.04035590009312601),
    25600: (0.000492092414731692, 0.0422205283983742),
    50687: (5.000096030178219e-08, 0.048652746344810205),
    50688: (5e-08, 0.048653085004757235),
    51199: (5e-08, 0.0488269855548743),
}


@pytest.mark.parametrize("name", ["ks", "ks_mode", "skey"])
@pytest.mark.parametrize("step", PUBLISHED)
def test_the_published_schedules(name: str, step: int) -> None:
    config = default_config(name).optimizer
    assert (learning_rate(step, config), weight_decay(step, config)) == pytest.approx(PUBLISHED[step], rel=1e-9)


def test_the_cosine_can_end_at_another_epoch() -> None:
    """The original's with 110 epochs of 8 steps, 3 epochs of warm-up and n_epochs_cosine = 60."""
    config = OptimizerConfig(epochs=110, train_steps=8, lr=1e-3, min_lr=5e-8, warmup_epochs=3, cosine_epochs=60)
    expected = {23: 1e-3, 24: 1e-3, 100: 0.0009330160512571249, 479: 6.186551617420061e-08, 480: 5e-8, 879: 5e-8}
    assert {step: learning_rate(step, config) for step in expected} == pytest.approx(expected, rel=1e-9)


def test_clipping_per_parameter_equals_the_originals() -> None:
    gradients = [[3.0, 4.0], [1.0, 2.0, 2.0], [math.nan, 1.0]]
    parameters = [torch.nn.Parameter(torch.zeros(len(values))) for values in gradients]
    parameters.append(torch.nn.Parameter(torch.zeros(1)))  # without a gradient
    for parameter, values in zip(parameters, gradients, strict=False):
        parameter.grad = torch.tensor(values)
    clip_gradients(parameters, default_config("ks").optimizer)
    clipped = [parameter.grad.tolist() for parameter in parameters[:3] if parameter.grad is not None]
    assert clipped[0] == pytest.approx([1.799999713897705, 2.3999996185302734], rel=1e-7)
    assert clipped[1] == pytest.approx([0.9999996423721313, 1.9999992847442627, 1.9999992847442627], rel=1e-7)
    assert clipped[2] == [0.0, 1.0]


def test_clipping_of_the_whole_network() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for parameter, value in zip(parameters, (30.0, 40.0), strict=True):
        parameter.grad = torch.tensor([value])
    clip_gradients(parameters, OptimizerConfig(clip=5.0, clip_per="network"))
    assert [parameter.grad.item() for parameter in parameters if parameter.grad is not None] == pytest.approx([3, 4])


def test_the_learning_rate_at_known_steps() -> None:
    config = OptimizerConfig(lr=1e-3, min_lr=1e-5, warmup_epochs=2, epochs=12, train_steps=10)
    assert learning_rate(0, config) == pytest.approx(1e-3 / 20)
    assert learning_rate(9, config) == pytest.approx(1e-3 / 2)
    assert learning_rate(19, config) == pytest.approx(1e-3)
    assert learning_rate(20, config) == pytest.approx(1e-3)
    assert learning_rate(70, config) == pytest.approx((1e-3 + 1e-5) / 2)  # half of the remaining 100 steps
    assert learning_rate(45, config) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(120, config) == pytest.approx(1e-5)
    assert learning_rate(500, config) == pytest.approx(1e-5)


def test_no_warm_up() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.0, warmup_epochs=0, epochs=1, train_steps=4)
    assert [learning_rate(step, config) for step in range(4)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


def test_weight_decay_at_known_steps() -> None:
    config = OptimizerConfig(weight_decay=0.04, weight_decay_end=0.4, epochs=10, train_steps=10)
    assert weight_decay(0, config) == pytest.approx(0.04)
    assert weight_decay(50, config) == pytest.approx(0.22)
    assert weight_decay(100, config) == pytest.approx(0.4)
    assert weight_decay(25, config) == pytest.approx(0.4 - 0.36 * (1 + math.sqrt(0.5)) / 2)


@pytest.mark.parametrize(("rows", "norm"), [(1, "affine"), (2, "plain")])
def test_biases_and_vectors_do_not_decay(rows: int, norm: str) -> None:
    """With gradients of zero, AdamW only decays the weights: w - lr * decay * w."""
    network = ChromaNet(ChromaNetConfig(rows=rows, normalization=norm))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(0.5, 1.0)
            parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = new_optimizer(network, OptimizerConfig(lr=0.1))
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.5 if group["decays"] else 0.0
    optimizer.step()
    kernels = ["conv.weight", "pwconv1.weight", "pwconv2.weight", "classifier.weight"]
    if norm == "affine":  # the published code lets the scale decay, which has two dimensions
        kernels.append("norm.weight")
    decayed = 0
    for name, parameter in network.named_parameters():
        is_kernel = name.endswith(tuple(kernels))
        decayed += is_kernel
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if is_kernel else 1.0))
    assert decayed == 7 * (6 if norm == "affine" else 4) + 1
