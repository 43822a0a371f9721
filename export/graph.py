"""Builds the ONNX graph of a key model: from audio to probabilities, including the VQT.

The graph is built node by node, not traced. So it is small, identical to the byte with every version of PyTorch, and
its batch and sample axes are dynamic. Every export compares it with ``stonecli_train.vqt`` and
``stonecli_train.chromanet`` (``stonecli_export.onnx_file``). Parameters are folded where that is exact: layer scale
into the second pointwise convolution, batch norm and temperature into the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from torch import Tensor, nn

from stonecli_export.graph_builder import END, GraphBuilder
from stonecli_export.low_rate_vqt import LowRateVQT, add_power
from stonecli_train.checkpoint import Checkpoint
from stonecli_train.chromanet import BINS_PER_OCTAVE, GATE_RANGE, ChromaNetConfig
from stonecli_train.vqt import AMPLITUDE_FLOOR, BLOCK, DB_RANGE, LOWPASS_TAPS, VQT, frame_block

OPSET = 20
NORM_EPSILON = 1e-5
CHANNEL_STEP = 4  # depthwise convolutions are padded to a multiple of this number of channels

Array = npt.NDArray[Any]


def build_model(
    checkpoint: Checkpoint,
    major_tonic_bins: Sequence[int] | None = None,
    low_rate: LowRateVQT | None = None,
    context: int = 0,
) -> onnx.ModelProto:
    """The ONNX model of ``checkpoint``, without metadata.

    Input ``audio`` float32 [batch, samples]; output ``probabilities`` float32 [batch, classes].

    Args:
        checkpoint: the checkpoint to export.
        major_tonic_bins: for 12 key signatures, the pitch class of each one's major tonic counted from the VQT's
            lowest bin, in output order. Adds the output ``major_share`` float32 [batch, 12]: the chroma energy at the
            major tonic of each signature relative to the sum of both tonics, 0..1. With it, a model of signatures can
            still name a key (S-KEY, section 3, uses the same comparison for its pseudo-labels of the mode).
        low_rate: parameters of the VQT at half the sample rate (``stonecli_export.low_rate_vqt``), which is then the
            rate of ``audio``; None for the VQT of training.
        context: number of frames at each end of ``audio`` that are dropped (``stonecli_export.context``).
    """
    network = checkpoint.network()
    weights = {name: _array(value) for name, value in network.state_dict().items()}
    graph = GraphBuilder()
    if low_rate is None:
        magnitude = _without_context(graph, _vqt_magnitude(graph, VQT(checkpoint.vqt)), 2, context)
        features = _log_magnitude(graph, magnitude)
        features = graph.slice(features, 1, 0, checkpoint.chromanet.n_bins)
        features = _average_frames(graph, features, checkpoint.frames_averaged)
    else:
        power = _without_context(graph, add_power(graph, low_rate), 1, context)
        features = _averaged_decibels(graph, power, checkpoint.frames_averaged)
    features = graph.op("Unsqueeze", features, graph.constant([1]))
    _chromanet(graph, features, checkpoint.chromanet, weights)
    outputs = ["probabilities"]
    if major_tonic_bins is not None:
        if low_rate is not None:
            magnitude = graph.op("Transpose", graph.op("Sqrt", power), perm=[0, 2, 1])
        _major_share(graph, magnitude, checkpoint.chromanet.n_bins, major_tonic_bins)
        outputs.append("major_share")
    classes = BINS_PER_OCTAVE * checkpoint.chromanet.rows
    proto = helper.make_graph(
        graph.nodes,
        "stone",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes]) for name in outputs],
        list(graph.initializers.values()),
    )
    model = helper.make_model(proto, producer_name="stone", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model


def _vqt_magnitude(graph: GraphBuilder, vqt: VQT) -> str:
    """Nodes for ``VQT.magnitude`` of ``audio``, [batch, n_bins, frames]."""
    config = vqt.config
    lowpass = graph.constant(_array(vqt.lowpass_matrix), "lowpass_matrix")
    graph.op("Add", graph.divide(graph.length("audio", 1), config.hop_length), graph.constant([1]), name="frames")
    signal = "audio"
    octaves: list[str] = []
    for octave in range(config.octaves):
        if octave:
            half = graph.divide(graph.length(signal, 1), 2)
            padded = graph.pad(signal, LOWPASS_TAPS // 2 - 1, LOWPASS_TAPS + BLOCK)
            product = graph.block_product(padded, lowpass, _array(vqt.lowpass_matrix).shape[0], BLOCK)
            signal = graph.slice(graph.reshape(product, [0, -1]), 1, 0, half)
        matrix = _array(getattr(vqt, f"frame_matrix_{octave}"))
        block = frame_block(config.hop_length >> octave)
        padded = graph.pad(signal, BLOCK // 2, BLOCK // 2, "reflect")
        padded = graph.pad(padded, 0, 2 * block)
        constant = graph.constant(matrix, f"frame_matrix_{octave}")
        product = graph.block_product(padded, constant, matrix.shape[0], block)
        by_frame = graph.reshape(product, [0, -1, 2, config.bins_per_octave])
        squares = graph.op("Mul", by_frame, by_frame)
        power = graph.op("ReduceSum", squares, graph.constant([2]), keepdims=0)
        octaves.insert(0, graph.slice(power, 1, 0, "frames"))
    stacked = graph.op("Concat", *octaves, axis=2)
    stacked = graph.slice(stacked, 2, config.octaves * config.bins_per_octave - config.n_bins, END)
    amplitude = graph.op("Transpose", graph.op("Sqrt", stacked), perm=[0, 2, 1])
    return graph.op("Mul", amplitude, graph.constant(_array(vqt.scale), "kernel_scale"), name="vqt_magnitude")


def _without_context(graph: GraphBuilder, x: str, axis: int, frames: int) -> str:
    return graph.slice(x, axis, frames, -frames) if frames else x


def _log_magnitude(graph: GraphBuilder, magnitude: str) -> str:
    """Nodes for ``VQT.decibels`` of ``magnitude``, [batch, bins, frames]."""
    clamped = graph.op("Max", magnitude, graph.constant(AMPLITUDE_FLOOR))
    level = graph.op("Mul", graph.op("Log", clamped), graph.constant(float(10 / np.log(10) / DB_RANGE)))
    peak = graph.op("ReduceMax", level, graph.constant([1, 2]), keepdims=1)
    floor = graph.op("Sub", peak, graph.constant(1.0))
    return graph.op("Add", graph.op("Max", level, floor), graph.constant(1.0))


def _averaged_decibels(graph: GraphBuilder, power: str, count: int) -> str:
    """``_log_magnitude`` and ``_average_frames`` of the power [batch, frames, bins]: [batch, frames // count, bins]."""
    clamped = graph.op("Max", power, graph.constant(AMPLITUDE_FLOOR**2))
    level = graph.op("Mul", graph.op("Log", clamped), graph.constant(float(5 / np.log(10) / DB_RANGE)))
    peak = graph.op("ReduceMax", level, graph.constant([1, 2]), keepdims=1)
    level = graph.op("Max", level, graph.op("Sub", peak, graph.constant(1.0)))
    if count > 1:
        whole = graph.op("Mul", graph.divide(graph.length(level, 1), count), graph.constant([count]))
        shape = graph.op("Concat", *(graph.constant([size]) for size in (0, -1, count)), graph.length(level, 2), axis=0)
        groups = graph.op("Reshape", graph.slice(level, 1, 0, whole), shape)
        level = graph.op("ReduceMean", groups, graph.constant([2]), keepdims=0)
    # The constant is added after averaging, because there are fewer values then.
    return graph.op("Add", level, graph.constant(1.0))


def _average_frames(graph: GraphBuilder, features: str, count: int) -> str:
    """Mean of every ``count`` frames: [batch, bins, frames] -> [batch, frames // count, bins]."""
    if count > 1:
        whole = graph.op("Mul", graph.divide(graph.length(features, 2), count), graph.constant([count]))
        groups = graph.reshape(graph.slice(features, 2, 0, whole), [0, 0, -1, count])
        features = graph.op("ReduceMean", groups, graph.constant([3]), keepdims=0)
    return graph.op("Transpose", features, perm=[0, 2, 1])


def _chromanet(graph: GraphBuilder, x: str, config: ChromaNetConfig, weights: dict[str, Array]) -> None:
    """Nodes for ``ChromaNet.forward`` of features [batch, 1, frames, bins]; the output is called ``probabilities``.

    Unlike in PyTorch, bins are the last axis: ONNX Runtime copies row by row, and frames would give rows of 40 to 1
    values.
    """
    weights = weights | {
        name: kernel.swapaxes(2, 3) for name, kernel in weights.items() if kernel.ndim == 4 and "_blocks." in name
    }
    over_time = ""  # [batch, channels, bins]
    levels: list[str] = []
    for block, size in enumerate(config.kernels):
        down, conv = f"time_downsampling_blocks.{block}", f"convnext_blocks.{block}"
        stride, dilation, kernel_dilation = config.stride_and_dilations(block)
        x = _norm(graph, x, weights, f"{down}.norm")
        x = graph.op("Gelu", _downsample(graph, x, weights, f"{down}.conv", stride, dilation))
        branch = _depthwise(graph, x, weights, f"{conv}.dwconv", config.out_channels[block], size, kernel_dilation)
        branch = _norm(graph, branch, weights, f"{conv}.norm")
        branch = graph.op("Gelu", _pointwise(graph, branch, weights, f"{conv}.pwconv1"))
        branch = _pointwise(graph, branch, weights, f"{conv}.pwconv2", weights[f"{conv}.gamma"])
        x = graph.op("Add", x, branch)
        # The mean over frames first: it commutes with the mean over octaves, and less data is reshaped.
        if config.gate_channels or block == len(config.kernels) - 1:
            over_time = graph.op("ReduceMean", x, graph.constant([2]), keepdims=0)
        if config.gate_channels:
            levels += _block_levels(graph, x, over_time, config.gate_statistics)
    x = over_time
    if config.head_channels:
        x = _circular_head(graph, graph.reshape(x, [0, -1, BINS_PER_OCTAVE]), weights)
    else:
        x = graph.reshape(x, [0, 0, config.n_bins // BINS_PER_OCTAVE, BINS_PER_OCTAVE])
        x = graph.op("ReduceMean", x, graph.constant([2]), keepdims=0)
    # [batch, channels, 12]
    kernel, bias = _folded_classifier(config, weights)
    x = graph.op("MatMul", graph.constant(kernel, "classifier.weight"), x)
    x = graph.op("Add", x, graph.constant(bias, "classifier.bias"))
    logits = graph.reshape(x, [0, -1])
    if config.gate_channels:
        logits = graph.op("Mul", logits, _tonal_gate(graph, levels, weights))
    graph.op("Softmax", logits, axis=-1, name="probabilities")


def _block_levels(graph: GraphBuilder, x: str, over_time: str, statistics: int) -> list[str]:
    """``block_levels`` of one block, each [batch, channels].

    Args:
        graph: the graph to add to.
        x: output of the block, [batch, channels, frames, bins].
        over_time: its mean over frames, [batch, channels, bins].
        statistics: 2 or 4 per channel.
    """
    mean, deviation = _mean_and_deviation(graph, over_time)
    if statistics == 2:
        return [mean, deviation]
    over_bins = graph.op("ReduceMean", x, graph.constant([3]), keepdims=0)
    centered = graph.op("Sub", x, graph.op("Unsqueeze", over_time, graph.constant([2])))
    square = graph.op("ReduceMean", graph.op("Mul", centered, centered), graph.constant([2]), keepdims=0)
    mean_deviation = graph.op("ReduceMean", graph.op("Sqrt", square), graph.constant([2]), keepdims=0)
    return [mean, deviation, _mean_and_deviation(graph, over_bins)[1], mean_deviation]


def _mean_and_deviation(graph: GraphBuilder, x: str) -> tuple[str, str]:
    """Mean and standard deviation over the last axis of [batch, channels, n], each [batch, channels]."""
    last = graph.constant([2])
    mean = graph.op("ReduceMean", x, last, keepdims=1)
    centered = graph.op("Sub", x, mean)
    square = graph.op("ReduceMean", graph.op("Mul", centered, centered), last, keepdims=0)
    return graph.op("Squeeze", mean, last), graph.op("Sqrt", square)


def _tonal_gate(graph: GraphBuilder, levels: Sequence[str], weights: dict[str, Array]) -> str:
    """Nodes for ``TonalGate.forward`` of the concatenated ``levels``, each [batch, channels]: [batch, 1]."""
    x = graph.op("Sub", graph.op("Concat", *levels, axis=1), graph.constant(weights["gate.mean"], "gate.mean"))
    x = graph.op("Div", x, graph.constant(weights["gate.deviation"], "gate.deviation"))
    x = graph.op("Clip", x, graph.constant(-GATE_RANGE), graph.constant(GATE_RANGE))
    for layer in ("gate.hidden", "gate.out"):
        matrix = graph.constant(np.ascontiguousarray(weights[f"{layer}.weight"].T), f"{layer}.weight")
        x = graph.op("Add", graph.op("MatMul", x, matrix), graph.constant(weights[f"{layer}.bias"], f"{layer}.bias"))
        x = graph.op("Gelu" if layer == "gate.hidden" else "Sigmoid", x)
    return x


def _circular_head(graph: GraphBuilder, x: str, weights: dict[str, Array]) -> str:
    """Nodes for ``CircularHead.forward`` of the channels of all octaves: [batch, n, 12] -> [batch, width, 12]."""
    kernels = {f"head.{name}.weight": weights[f"head.{name}.weight"][:, :, :, 0] for name in ("mix", "around")}
    both = weights | kernels  # without the axis of frames
    mixed = graph.op("Gelu", _conv(graph, _norm(graph, x, both, "head.norm"), both, "head.mix"))
    circle = graph.op("Concat", mixed, graph.slice(mixed, 2, 0, BINS_PER_OCTAVE - 1), axis=2)
    return graph.op("Add", mixed, graph.op("Gelu", _conv(graph, circle, both, "head.around")))


def _folded_classifier(config: ChromaNetConfig, weights: dict[str, Array]) -> tuple[Array, Array]:
    """Kernel [rows, channels] and bias [rows, 1] of the classifier, with batch norm and temperature folded in."""
    kernel, bias = weights["classifier.weight"][:, :, 0, 0], weights["classifier.bias"]
    if config.rows == 2:
        deviation = np.sqrt(weights["batch_norm.running_var"] + NORM_EPSILON)
        kernel = kernel / deviation[:, None]
        bias = (bias - weights["batch_norm.running_mean"]) / deviation
    return kernel / config.temperature, bias[:, None] / config.temperature


def _norm(graph: GraphBuilder, x: str, weights: dict[str, Array], prefix: str) -> str:
    if f"{prefix}.weight" in weights:  # FrameNorm
        by_frame = graph.op("Transpose", x, perm=[0, 2, 3, 1])
        scale = graph.constant(weights[f"{prefix}.weight"], f"{prefix}.weight")
        offset = graph.constant(weights[f"{prefix}.bias"], f"{prefix}.bias")
        normed = graph.op("LayerNormalization", by_frame, scale, offset, axis=2, epsilon=NORM_EPSILON)
        return graph.op("Transpose", normed, perm=[0, 3, 1, 2])
    flat = graph.reshape(x, [0, 1, -1])  # ItemNorm: instance norm with one channel
    one, zero = graph.constant([1.0]), graph.constant([0.0])
    normed = graph.op("InstanceNormalization", flat, one, zero, epsilon=NORM_EPSILON)
    return graph.op("Reshape", normed, graph.op("Shape", x))


def _conv(graph: GraphBuilder, x: str, weights: dict[str, Array], prefix: str, **attributes: Any) -> str:
    kernel = graph.constant(weights[f"{prefix}.weight"], f"{prefix}.weight")
    bias = graph.constant(weights[f"{prefix}.bias"], f"{prefix}.bias")
    return graph.op("Conv", x, kernel, bias, **attributes)


def _downsample(graph: GraphBuilder, x: str, weights: dict[str, Array], prefix: str, stride: int, dilation: int) -> str:
    """Nodes for the convolution of a ``TimeDownsamplingBlock``."""
    return _conv(graph, x, weights, prefix, strides=[stride, 1], kernel_shape=[2, 1], **_dilations(dilation))


def _dilations(dilation: int) -> dict[str, Any]:
    return {"dilations": [dilation, 1]} if dilation > 1 else {}


def _depthwise(
    graph: GraphBuilder, x: str, weights: dict[str, Array], prefix: str, channels: int, size: int, dilation: int
) -> str:
    """A depthwise convolution with replicated edges, and with ``dilation`` over frames."""
    # ONNX Runtime is five times as fast with a multiple of four channels, so zero channels are added and dropped again.
    spare = -channels % CHANNEL_STEP
    frames, bins = size // 2 * dilation, size // 2
    edges = [0, 0, frames, bins, 0, spare, frames, bins]
    padded = graph.op("Pad", x, graph.constant(edges), mode="edge")
    kernel, bias = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
    filled = {
        f"{prefix}.weight": np.concatenate([kernel, np.zeros((spare, *kernel.shape[1:]))]),
        f"{prefix}.bias": np.concatenate([bias, np.zeros(spare)]),
    }
    out = _conv(
        graph, padded, filled, prefix, group=channels + spare, kernel_shape=[size, size], **_dilations(dilation)
    )
    return graph.slice(out, 1, 0, channels) if spare else out


def _pointwise(graph: GraphBuilder, x: str, weights: dict[str, Array], prefix: str, scale: Array | None = None) -> str:
    """A linear layer over channels as a 1 x 1 convolution, with its outputs multiplied by ``scale``."""
    kernel, bias = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
    if scale is not None:
        kernel, bias = kernel * scale[:, None], bias * scale
    folded = {f"{prefix}.weight": kernel[:, :, None, None], f"{prefix}.bias": bias}
    return _conv(graph, x, folded, prefix, kernel_shape=[1, 1])


def _major_share(graph: GraphBuilder, magnitude: str, n_bins: int, major_tonic_bins: Sequence[int]) -> None:
    """Nodes for ``major_share``: chroma energy at the major tonic of each signature over that at both tonics."""
    lowest = graph.slice(magnitude, 1, 0, n_bins)
    energy = graph.op("ReduceMean", graph.op("Mul", lowest, lowest), graph.constant([2]), keepdims=0)
    chroma = graph.reshape(energy, [0, n_bins // BINS_PER_OCTAVE, BINS_PER_OCTAVE])
    chroma = graph.op("ReduceMean", chroma, graph.constant([1]), keepdims=0)
    chroma = graph.op("Add", chroma, graph.constant(1e-20))  # 0.5 for silence instead of NaN
    major = graph.op("Gather", chroma, graph.constant([tonic % 12 for tonic in major_tonic_bins]), axis=1)
    minor = graph.op("Gather", chroma, graph.constant([(tonic - 3) % 12 for tonic in major_tonic_bins]), axis=1)
    graph.op("Div", major, graph.op("Add", major, minor), name="major_share")


def _array(tensor: Tensor | nn.Module) -> Array:
    assert isinstance(tensor, Tensor)  # noqa: S101 (a buffer; nn.Module types it as either)
    return tensor.detach().cpu().numpy()
