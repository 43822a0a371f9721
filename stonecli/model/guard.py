"""What an ONNX file may hold before onnxruntime, a large C++ program, gets to see it.

A model file is data that somebody may have been sent. onnxruntime runs any graph: one that reads weights from other
files or, by a location of its own, from addresses in memory; one with operators of extensions; one that claims to be
larger than it is. A key model needs none of that (docs/models.md, "What is checked").
"""

from __future__ import annotations

from math import prod

from stonecli.errors import ModelError
from stonecli.model.protobuf import Field, Reader

MAX_DIMENSION = 1 << 26  # more than any window has samples
MAX_RANK = 8
STANDARD_DOMAINS = ("", "ai.onnx")

# All that stone's exporter writes, and what else a convolutional network on a linear transform of audio may need.
# Not here: control flow, which brings subgraphs; random numbers; text, images and sequences; and operators that make
# much out of nothing (Expand, Tile, ConstantOfShape, Range).
_ONE_BY_ONE = (
    "Abs Add And Cast Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish "
    "Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid "
    "Sign Sin Softplus Sqrt Sub Sum Tanh Where"
)
_OVER_AN_AXIS = (
    "ArgMax CumSum LogSoftmax LpNormalization ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceSum ReduceSumSquare Softmax"
)
_LAYERS = (
    "AveragePool BatchNormalization Conv Gemm GlobalAveragePool GlobalMaxPool GroupNormalization "
    "InstanceNormalization LayerNormalization MatMul MaxPool"
)
_SHAPES = "Concat Constant Flatten Gather Pad Reshape Shape Slice Split Squeeze Transpose Unsqueeze"
OPERATORS = frozenset(f"{_ONE_BY_ONE} {_OVER_AN_AXIS} {_LAYERS} {_SHAPES}".split())

_EXTERNAL = 1  # TensorProto.DataLocation
# TensorProto.DataType -> bytes a number, and the field for numbers that are not raw
_NUMBERS = {
    1: (4, "float_data"),  # float32
    2: (1, "int32_data"),  # uint8
    3: (1, "int32_data"),  # int8
    6: (4, "int32_data"),  # int32
    7: (8, "int64_data"),  # int64
    9: (1, "int32_data"),  # bool
    10: (2, "int32_data"),  # float16
    11: (8, "double_data"),  # float64
}


def check_onnx(content: bytes, *, with_graph: bool = True) -> dict[str, str]:
    """The metadata of an ONNX file that may be loaded, by name.

    Checked are every operator, every tensor, every shape; nothing of it is run. Time and memory grow with the file.
    Without ``with_graph`` the graph is not looked into: for a file that is as much to be trusted as this one.

    Raises:
        ModelError: it is no whole ONNX file, or holds what a key model may not hold.
    """
    reader = Reader()
    metadata: dict[str, str] = {}
    graphs = 0
    for field in reader.fields(memoryview(content), "ModelProto"):
        if field.name == "graph":
            graphs += 1
            if with_graph:
                _check_graph(reader, field)
        elif field.name == "opset_import":
            _check_domain(_text_of(reader, field, "OperatorSetIdProto").get("domain", ""))
        elif field.name == "metadata_props":
            entry = _text_of(reader, field, "StringStringEntryProto")
            name = entry.get("key", "")
            if name in metadata:
                raise ModelError(f"not a key model: two descriptions called {name[:40]!r}")
            metadata[name] = entry.get("value", "")
    if not graphs:
        raise ModelError("not a model: there is no graph in it")
    return metadata


def _check_graph(reader: Reader, graph: Field) -> None:
    for field in reader.fields(graph.data, "GraphProto"):
        if field.name == "node":
            _check_node(reader, field)
        elif field.name == "initializer":
            _check_tensor(reader, field)
        elif field.name in ("input", "output", "value_info"):
            _check_value(reader, field)
        elif field.name == "metadata_props":
            _text_of(reader, field, "StringStringEntryProto")


def _check_node(reader: Reader, node: Field) -> None:
    operator = ""
    for field in reader.fields(node.data, "NodeProto"):
        if field.name == "op_type":
            operator = field.text()
        elif field.name == "domain":
            _check_domain(field.text())
        elif field.name == "overload" and len(field.data):
            raise ModelError("operators of its own are not allowed in a key model")
        elif field.name == "attribute":
            for part in reader.fields(field.data, "AttributeProto"):
                if part.name in ("t", "tensors"):
                    _check_tensor(reader, part)
        elif field.name == "metadata_props":
            _text_of(reader, field, "StringStringEntryProto")
    if operator not in OPERATORS:
        raise ModelError(f"the operator {operator[:40]!r} is not allowed in a key model")


def _check_domain(domain: str) -> None:
    if domain not in STANDARD_DOMAINS:
        raise ModelError(f"operators of {domain[:40]!r} are not allowed in a key model")


def _check_tensor(reader: Reader, tensor: Field) -> None:
    """Refuse a tensor whose numbers lie elsewhere, or are not as many as it says."""
    dims: list[int] = []
    kind, raw, numbers = 0, None, dict.fromkeys(("float_data", "int32_data", "int64_data", "double_data"), 0)
    for field in reader.fields(tensor.data, "TensorProto"):
        if field.name == "external_data" or (field.name == "data_location" and field.value == _EXTERNAL):
            raise ModelError("not a model that can be loaded: it keeps weights in other files")
        if field.name == "dims":
            dims += field.integers() if field.count <= MAX_RANK else [-1]
        elif field.name == "data_type":
            kind = field.value
        elif field.name == "raw_data":
            raw = len(field.data)
        elif field.name in numbers:
            numbers[field.name] += field.count
        elif field.name == "metadata_props":
            _text_of(reader, field, "StringStringEntryProto")
    _check_dimensions(dims)
    if kind not in _NUMBERS:
        raise ModelError(f"tensors of type {kind} are not allowed in a key model")
    width, name = _NUMBERS[kind]
    if raw is not None:
        there, wanted = raw, prod(dims) * width
    else:
        there, wanted = numbers.pop(name), prod(dims)
    if there != wanted or any(numbers.values()):
        raise ModelError("not a model that is whole: a tensor has not as many numbers as it says")


def _check_value(reader: Reader, value: Field) -> None:
    """Refuse an input, output or intermediate value that is no tensor of bounded shape."""
    for field in reader.fields(value.data, "ValueInfoProto"):
        if field.name == "metadata_props":
            _text_of(reader, field, "StringStringEntryProto")
        if field.name != "type":
            continue
        for tensor in reader.fields(field.data, "TypeProto"):
            if tensor.name != "tensor_type":
                continue
            for shape in reader.fields(tensor.data, "Tensor"):
                if shape.name == "shape":
                    _check_shape(reader, shape)


def _check_shape(reader: Reader, shape: Field) -> None:
    dims = []
    for dim in reader.fields(shape.data, "TensorShapeProto"):
        dims.append(0)
        for field in reader.fields(dim.data, "Dimension"):
            if field.name == "dim_value":
                dims[-1] = field.value
    _check_dimensions(dims)


def _check_dimensions(dims: list[int]) -> None:
    if len(dims) > MAX_RANK or not all(0 <= dim <= MAX_DIMENSION for dim in dims):
        raise ModelError(f"not a key model: a tensor of more than {MAX_RANK} axes, or with an axis that is too long")


def _text_of(reader: Reader, field: Field, message: str) -> dict[str, str]:
    """The texts in a message of plain fields, by name."""
    return {part.name: part.text() for part in reader.fields(field.data, message)}
