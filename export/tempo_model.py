"""Exports a tempo checkpoint to a self-describing ONNX file, after comparing its outputs with PyTorch.

python -m stonecli_export.tempo_model CHECKPOINT.pt MODEL.onnx
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from stonecli._version import __version__
from stonecli.errors import StoneError
from stonecli.tempo.model import FORMAT_VERSION, INPUT, METADATA_KEY, OUTPUT, TempoModel
from stonecli.tempo.periodicity import CHANNELS, TEMPOS
from stonecli.util.atomic_file import atomic_file
from stonecli_export.graph_builder import GraphBuilder
from stonecli_train.checkpoint import file_sha256
from stonecli_train.errors import message
from stonecli_train.tempo.fit import load_networks
from stonecli_train.tempo.network import (
    FIRST,
    HIDDEN_OFFSETS,
    INPUT_OFFSETS,
    LAST,
    MARGIN,
    OUTPUT_TEMPOS,
    PADDING,
    POOL,
    STEPS,
    TempoNet,
    pooled,
)

TOLERANCE = 1e-4  # maximum difference of a logit between ONNX and PyTorch
OPSET, IR_VERSION = 17, 8
TRAINED_ON = (
    "rendered and sketched arrangements (this repository, MIT; chord charts of CoCoPops and JazzStandards, POP909), "
    "drummers of the Groove MIDI Dataset (CC BY 4.0)"
)


def build_tempo_model(networks: Sequence[TempoNet], sha256: str) -> onnx.ModelProto:
    """The ONNX model: periodicity [1, CHANNELS, len(TEMPOS)] -> mean logits of the networks [1, LAST - FIRST + 1]."""
    build = GraphBuilder()
    x = build.op("MaxPool", INPUT, kernel_shape=[3], strides=[POOL], pads=[1, 1])
    logits = [_branch(build, x, network, number) for number, network in enumerate(networks)]
    total = logits[0]
    for other in logits[1:]:
        total = build.op("Add", total, other)
    build.op("Mul", total, build.constant(1.0 / len(networks)), name=OUTPUT)
    graph = helper.make_graph(
        build.nodes,
        "tempo",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, CHANNELS, len(TEMPOS)])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, LAST - FIRST + 1])],
        list(build.initializers.values()),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="stone",
        producer_version=__version__,
    )
    info = {
        "version": FORMAT_VERSION,
        "slowest_bpm": float(OUTPUT_TEMPOS[0]),
        "steps_per_octave": STEPS,
        "tempi": len(OUTPUT_TEMPOS),
        "license": "MIT",
        "trained_on": TRAINED_ON,
        "checkpoint_sha256": sha256,
    }
    helper.set_model_props(model, {METADATA_KEY: json.dumps(info)})
    onnx.checker.check_model(model)
    return model


def _branch(build: GraphBuilder, x: str, network: TempoNet, number: int) -> str:
    """Nodes for the logits of one network, [1, LAST - FIRST + 1]."""

    def weight(values: torch.Tensor, name: str) -> str:
        return build.constant(values.detach().numpy(), f"{name}_{number}")

    def layer(inputs: str, linear: torch.nn.Linear, name: str) -> str:
        product = build.op("MatMul", weight(linear.weight, f"{name}_weight"), inputs)
        return build.op("Add", product, weight(linear.bias[:, None], f"{name}_bias"))

    x = build.op("Sub", x, weight(network.mean, "mean"))
    x = build.op("Div", x, weight(network.deviation, "deviation"))
    x = build.op("Pad", x, build.constant([0, 0, PADDING, 0, 0, PADDING]))
    start, length = PADDING + FIRST - MARGIN, LAST - FIRST + 2 * MARGIN
    rows = [build.slice(x, 2, start + offset, start + offset + length) for offset in INPUT_OFFSETS]
    x = build.op("Relu", layer(build.op("Concat", *rows, axis=1), network.first, "first"))
    rows = [build.slice(x, 2, MARGIN + offset, MARGIN + offset + LAST - FIRST) for offset in HIDDEN_OFFSETS]
    x = build.op("Relu", layer(build.op("Concat", *rows, axis=1), network.second, "second"))
    tempos = build.op("Add", layer(x, network.tempo, "tempo"), weight(network.hats @ network.bias, "absolute_tempo"))
    none = layer(build.op("ReduceMax", x, axes=[2], keepdims=1), network.none, "none")
    return build.reshape(build.op("Concat", tempos, none, axis=2), [1, -1])


def export_tempo_model(checkpoint: Path, path: Path) -> None:
    """Write the model of a tempo checkpoint to ``path``, atomically.

    Raises:
        StoneError: the outputs of ONNX Runtime and PyTorch differ; nothing was written.
        OSError: a file cannot be read or written.
    """
    networks = load_networks(checkpoint)
    content = build_tempo_model(networks, file_sha256(checkpoint)).SerializeToString()
    model = TempoModel(content)
    values = np.random.default_rng(0).random((CHANNELS, len(TEMPOS)), dtype=np.float32)
    with torch.no_grad():
        inputs = pooled(torch.tensor(values)[None])
        expected = torch.stack([network(inputs)[0] for network in networks]).mean(dim=0).numpy()
    difference = float(np.abs(model.logits(values) - expected).max())
    if not difference <= TOLERANCE:
        raise StoneError(f"the outputs of ONNX Runtime and PyTorch differ by {difference:.2g}")
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def main(arguments: Sequence[str]) -> int:
    """Exit code after running the command."""
    parser = argparse.ArgumentParser(prog="python -m stonecli_export.tempo_model", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of stonecli_train.tempo.fit")
    parser.add_argument("model", type=Path, help="write the model to this file")
    options = parser.parse_args(arguments)
    try:
        export_tempo_model(options.checkpoint, options.model)
    except (StoneError, OSError) as error:
        print(message(error), file=sys.stderr)
        return 1
    print(f"{options.model}: {options.model.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
