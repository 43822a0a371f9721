"""Builds ONNX graphs node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
END = int(np.iinfo(np.int64).max)  # end of an axis of any length


class GraphBuilder:
    """Collects nodes and constants; every method that adds a node returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, called ``name`` if given."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, values: Array | Sequence[int] | Sequence[float] | float, name: str | None = None) -> str:
        """Add a constant, float32 or int64; unnamed constants of equal value are stored once."""
        array = np.asarray(values)
        array = np.ascontiguousarray(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64)
        name = name or f"const_{array.dtype.kind}_" + "x".join(map(str, array.ravel().tolist())) + f"_{array.shape}"
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def slice(self, x: str, axis: int, start: int, end: int | str) -> str:
        """``x[..., start:end]`` on ``axis``; ``end`` may be the name of a length computed in the graph, shape [1]."""
        stop = end if isinstance(end, str) else self.constant([end])
        return self.op("Slice", x, self.constant([start]), stop, self.constant([axis]))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """``x`` reshaped; 0 keeps an axis, -1 is inferred."""
        return self.op("Reshape", x, self.constant(list(shape)))

    def length(self, x: str, axis: int) -> str:
        """Length of one axis, int64 [1]."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def divide(self, value: str, by: int) -> str:
        """Integer quotient, rounded down."""
        return self.op("Div", value, self.constant([by]))

    def pad(self, x: str, before: int, after: int, mode: str = "constant") -> str:
        """``x`` [batch, n], padded at both ends of its second axis."""
        return self.op("Pad", x, self.constant([0, before, 0, after]), mode=mode)

    def block_product(self, signal: str, matrix: str, rows: int, block: int) -> str:
        """Nodes for ``stonecli_train.vqt._block_product``: runs of blocks of ``signal`` times ``matrix`` [rows, n]."""
        whole = self.op("Mul", self.divide(self.length(signal, 1), block), self.constant([block]))
        blocks = self.reshape(self.slice(signal, 1, 0, whole), [0, -1, block])
        adjacent = rows // block
        if adjacent > 1:
            last = adjacent - 1
            shifted = [self.slice(blocks, 1, j, j - last if j < last else END) for j in range(adjacent)]
            blocks = self.op("Concat", *shifted, axis=2)
        return self.op("MatMul", blocks, matrix)
