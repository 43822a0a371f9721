"""Check an ONNX file before onnxruntime, a large C++ library, parses it.

A model file is untrusted data. onnxruntime runs any graph: it loads weights from other files or, with a special
location, from memory addresses; it runs custom operators; it accepts tensors that declare more data than there is. A
key model needs none of these, so they are refused (docs/models.md, "What is checked").
"""

from __future__ import annotations

from math import prod

from stonecli.errors import ModelError
from stonecli.model.protobuf import Field, Reader

MAX_DIMENSION = 1 << 26  # larger than the number of samples in any window
MAX_RANK = 8
STANDARD_DOMAINS = ("", "ai.onnx")

# The operators that stone export writes, and others of convolutional networks on linear transforms of audio.
# Excluded: control flow, which has subgraphs; random numbers; text, images and sequences; and operators with a small
# input and a large output (Expand, Tile, ConstantOfShape, Range).
_ELEMENTWISE = (
    "Abs Add And Cast Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish "
    "Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid "
    "Sign Sin Softplus Sqrt Sub Sum Tanh Where"
)
_REDUCTIONS = (
    "ArgMax CumSum LogSoftmax LpNormalization ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceSum ReduceSumSquare Softmax"
)
_LAYERS = (
    "AveragePool BatchNormalization Conv Gemm GlobalAveragePool GlobalMaxPool GroupNormalization "
    "InstanceNormalization LayerNormalization MatMul MaxPool"
)
_SHAPES = "Concat Constant Flatten Gather Pad Reshape Shape Slice Split Squeeze Transpose Unsqueeze"
OPERATORS = frozenset(f"{_ELEMENTWISE} {_REDUCTIONS} {_LAYERS} {_SHAPES}".split())

_EXTERNAL = 1  # TensorProto.DataLocation
# TensorProto.DataType -> bytes per number, and the field of numbers that are not in raw_data
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
    """The metadata of an ONNX file by name, after checking every operator, tensor and shape; nothing is run.

    Time and memory are proportional to the size of the file. ``with_graph=False`` does not check the graph: use it for
    trusted files only.

    Raises:
        ModelError: the file is not a complete ONNX file, or contains something that is not allowed in a key model.
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
                raise ModelError(f"not a key model: duplicate metadata {name[:40]!r}")
            metadata[name] = entry.get("value", "")
    if not graphs:
        raise ModelError("not a valid model file: it has no graph")
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
            raise ModelError("custom operators are not allowed in a key model")
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
    """Refuse a tensor with external data, or with another number of values than its shape declares."""
    dims: list[int] = []
    kind, raw, numbers = 0, None, dict.fromkeys(("float_data", "int32_data", "int64_data", "double_data"), 0)
    for field in reader.fields(tensor.data, "TensorProto"):
        if field.name == "external_data" or (field.name == "data_location" and field.value == _EXTERNAL):
            raise ModelError("not a model that can be loaded: it has weights in other files")
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
        found, declared = raw, prod(dims) * width
    else:
        found, declared = numbers.pop(name), prod(dims)
    if found != declared or any(numbers.values()):
        raise ModelError("not a valid model file: the size of a tensor does not match its shape")


def _check_value(reader: Reader, value: Field) -> None:
    """Refuse an input, output or intermediate value that is not a tensor of bounded shape."""
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
        raise ModelError(f"not a key model: a tensor has more than {MAX_RANK} axes, or an axis that is too long")


def _text_of(reader: Reader, field: Field, message: str) -> dict[str, str]:
    """The text fields of a message, by name."""
    return {part.name: part.text() for part in reader.fields(field.data, message)}
