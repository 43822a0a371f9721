from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from stonecli.model.guard import check_onnx  # noqa: E402
from stonecli.model.runtime import onnxruntime  # noqa: E402
from stonecli_export.graph import OPSET, build_model  # noqa: E402
from stonecli_export.graph_builder import GraphBuilder  # noqa: E402
from stonecli_export.onnx_file import AudioNetwork  # noqa: E402
from stonecli_train.checkpoint import Checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402
from stonecli_train.vqt import VQT, VQTConfig  # noqa: E402

CASES: dict[str, dict[str, Any]] = {
    "published, plain": {},
    "published, affine": {"rows": 1, "normalization": "affine"},
    "24 classes, affine, 4 frames": {"normalization": "affine", "frames_averaged": 4, "blocks": 5},
    "12 classes, plain, 3 frames, cold": {"rows": 1, "frames_averaged": 3, "temperature": 0.4, "blocks": 3},
    "one block": {"out_channels": (2,), "kernels": (23,), "temperature": 4.0},
    "kernels of one": {"rows": 1, "normalization": "affine", "out_channels": (3, 1, 5), "kernels": (1, 1, 3)},
    "two octaves": {"out_channels": (4, 4, 4), "kernels": (3, 9, 5), "n_bins": 24, "frames_averaged": 4},
    "circular head": {"head_channels": 9, "out_channels": (4, 6, 5), "kernels": (3, 5, 3), "frames_averaged": 4},
    "circular head, 12 classes": {"rows": 1, "head_channels": 4, "normalization": "affine", "blocks": 4},
    "gate": {"gate_channels": 7, "out_channels": (4, 6, 5), "kernels": (3, 5, 3), "frames_averaged": 4},
    "gate and circular head, 12 classes": {"rows": 1, "gate_channels": 3, "head_channels": 4, "blocks": 4},
    "gate over time": {
        "gate_channels": 5,
        "gate_statistics": 4,
        "out_channels": (4, 6, 5),
        "kernels": (3, 5, 3),
    },
    "dense": {"dense_blocks": 3, "out_channels": (4, 6, 5, 3), "kernels": (3, 5, 3, 5), "frames_averaged": 4},
    "all dense, affine, gate": {
        "dense_blocks": 4,
        "normalization": "affine",
        "gate_channels": 3,
        "gate_statistics": 4,
        "blocks": 4,
    },
    "11 kHz": {"vqt": VQTConfig(sample_rate=11025, hop_length=256, n_bins=84), "blocks": 4},
    "odd hops": {"vqt": VQTConfig(hop_length=384, fmin=1000.0, n_bins=36), "n_bins": 36, "blocks": 3},
    "all the bins there are": {"vqt": VQTConfig(sample_rate=24000, n_bins=96), "n_bins": 96, "blocks": 4},
}


def random_checkpoint(blocks: int = 7, **changes: Any) -> Checkpoint:
    """A checkpoint whose every weight and running statistic is random: none has a special value."""
    outer = {name: changes.pop(name) for name in ("vqt", "frames_averaged") if name in changes}
    defaults = ChromaNetConfig()
    shape = {"out_channels": defaults.out_channels[:blocks], "kernels": defaults.kernels[:blocks]}
    config = ChromaNetConfig(**shape | changes)
    torch.manual_seed(sum(config.out_channels) + config.rows)
    weights = ChromaNet(config).state_dict()
    for name, value in weights.items():
        if name.endswith("running_var"):
            value.uniform_(0.05, 4.0)
        elif value.is_floating_point():
            value.add_(0.3 * torch.randn_like(value))
    return Checkpoint(config, weights, **outer)


def sound(batch: int, samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Tones in noise, each item at another level. (Without noise the gaps between tones are float32 rounding.)"""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 22050
    pitches = 110 * 2 ** (random.integers(0, 36, (batch, 4, 1)) / 12)
    tones = np.sin(2 * np.pi * pitches * time).sum(1) + 0.5 * random.standard_normal((batch, samples))
    return (tones * 10.0 ** random.uniform(-3, 1, (batch, 1))).astype(np.float32)


def session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_onnx_and_pytorch_agree_for_every_batch_and_length(case: dict[str, Any]) -> None:
    checkpoint = random_checkpoint(**case)
    model = build_model(checkpoint)
    check_onnx(model.SerializeToString())  # otherwise stone would refuse the model
    runtime, network = session(model), AudioNetwork(checkpoint).eval()
    least = checkpoint.minimum_samples
    for batch, extra in ((1, 0), (2, 1), (3, 511), (5, 40_001), (1, 100_000)):
        audio = sound(batch, least + extra, seed=batch)
        with torch.inference_mode():
            expected = network(torch.from_numpy(audio)).numpy()
        (answer,) = runtime.run(None, {"audio": audio})
        assert answer.shape == (batch, 12 * checkpoint.chromanet.rows)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, atol=1e-4)
        assert np.ptp(expected, axis=1).min() > 1e-3  # where all is equal anything would agree
        if batch > 1:
            assert np.abs(expected[0] - expected[1]).max() > 1e-4  # so the items have different answers


@pytest.mark.parametrize("name", ["published, plain", "published, affine"])
@pytest.mark.parametrize("level", [0.0, 1e-30, 1e4])
def test_silence_and_very_loud_audio(name: str, level: float) -> None:
    checkpoint = random_checkpoint(**CASES[name])
    audio = np.float32(level) * sound(2, checkpoint.minimum_samples)
    with torch.inference_mode():
        expected = AudioNetwork(checkpoint).eval()(torch.from_numpy(audio)).numpy()
    (answer,) = session(build_model(checkpoint)).run(None, {"audio": audio})
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(answer, expected, atol=1e-4)


def test_batch_norm_is_merged_into_the_convolution() -> None:
    """Its running statistics are far from 0 and 1; without them the answer would be another."""
    checkpoint = random_checkpoint(blocks=3)
    weights = checkpoint.weights
    weights["batch_norm.running_mean"] = torch.tensor([3.0, -5.0])
    weights["batch_norm.running_var"] = torch.tensor([0.01, 40.0])
    audio = sound(2, checkpoint.minimum_samples)
    with torch.inference_mode():
        expected = AudioNetwork(checkpoint).eval()(torch.from_numpy(audio)).numpy()
    (answer,) = session(build_model(checkpoint)).run(None, {"audio": audio})
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    weights["batch_norm.running_mean"], weights["batch_norm.running_var"] = torch.zeros(2), torch.ones(2)
    (without,) = session(build_model(checkpoint)).run(None, {"audio": audio})
    assert np.abs(answer - without).max() > 0.01


@pytest.mark.parametrize("n_bins", [84, 24])
@pytest.mark.parametrize("first", [0, 3, 10])
def test_major_share_is_that_of_a_plain_computation(n_bins: int, first: int) -> None:
    checkpoint = random_checkpoint(rows=1, n_bins=n_bins, blocks=2)
    tonics = [(first + step) % 12 for step in range(12)]
    audio = sound(3, 60_000)
    probabilities, share = session(build_model(checkpoint, tonics)).run(
        ["probabilities", "major_share"], {"audio": audio}
    )
    with torch.inference_mode():
        magnitude = VQT(checkpoint.vqt).magnitude(torch.from_numpy(audio)).double().numpy()
    energy = (magnitude[:, :n_bins] ** 2).mean(2)  # [batch, bins]
    chroma = np.stack([energy[:, pitch::12].mean(1) for pitch in range(12)], axis=1)
    for index, tonic in enumerate(tonics):
        major, minor = chroma[:, tonic], chroma[:, (tonic + 9) % 12]  # the relative minor lies a major sixth above
        np.testing.assert_allclose(share[:, index], major / (major + minor), rtol=2e-3, atol=1e-4)
    assert share.shape == probabilities.shape == (3, 12)
    assert np.ptp(share) > 0.5


def test_major_share_of_silence_is_one_half() -> None:
    model = build_model(random_checkpoint(rows=1, blocks=2), range(12))
    (share,) = session(model).run(["major_share"], {"audio": np.zeros((1, 60_000), np.float32)})
    np.testing.assert_array_equal(share, 0.5)


@pytest.mark.parametrize("rows", [1, 2])
def test_the_model_file_follows_the_contract(rows: int) -> None:
    model = build_model(random_checkpoint(rows=rows), range(12) if rows == 1 else None)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    assert OPSET >= 17
    assert {node.domain for node in model.graph.node} == {""}  # only standard operators, which every runtime has
    assert not any(item.external_data or item.data_location for item in model.graph.initializer)
    inputs = {item.name: item.type.tensor_type for item in model.graph.input}
    outputs = {item.name: item.type.tensor_type for item in model.graph.output}
    assert set(inputs) == {"audio"}
    assert set(outputs) == ({"probabilities", "major_share"} if rows == 1 else {"probabilities"})
    for item in (*inputs.values(), *outputs.values()):
        assert item.elem_type == onnx.TensorProto.FLOAT
        assert item.shape.dim[0].dim_param == "batch"
    assert inputs["audio"].shape.dim[1].dim_param == "samples"
    assert outputs["probabilities"].shape.dim[1].dim_value == 12 * rows


def test_the_same_checkpoint_gives_the_same_bytes() -> None:
    first, second = (build_model(random_checkpoint(blocks=3)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_constants_are_shared_only_where_they_are_equal() -> None:
    graph = GraphBuilder()
    long = [*range(12)]
    assert graph.constant(long) == graph.constant(list(long))
    assert graph.constant(long) != graph.constant([*long[:11], 99])
    assert graph.constant([1]) != graph.constant([1.0])
    assert graph.constant(np.array([[1, 2]])) != graph.constant([1, 2])
    names = [item.name for item in graph.initializers.values()]
    assert len(names) == len(set(names)) == 6


def test_every_hyperparameter_has_a_case() -> None:
    """A field of the network that no case changes would be exported unchecked."""
    defaults = dataclasses.asdict(ChromaNetConfig())
    changed = {name for case in CASES.values() for name, value in case.items() if defaults.get(name) != value}
    training_only = {"drop_path"}
    assert defaults.keys() - changed == training_only, "add a case to CASES with another value than the default"
