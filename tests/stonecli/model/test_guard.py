"""The check of model files, which reads bytes only; compared with the parser of the package onnx."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.errors import ModelError
from stonecli.key import Key
from stonecli.model import session as model
from stonecli.model.guard import MAX_DIMENSION, OPERATORS, check_onnx
from stonecli.model.protobuf import MAX_FIELDS, SCHEMA
from stonecli.model.session import KeyModel
from tests.fixture_types import MakeModel

onnx = pytest.importorskip("onnx")
helper, numpy_helper, Proto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
FLOAT = Proto.FLOAT

Build = Callable[..., Path]


def model_of(
    nodes: list[Any] | None = None, tensors: list[Any] | None = None, shape: tuple[Any, ...] = ("batch", "samples")
) -> Any:
    """A model with the given nodes and tensors."""
    graph = helper.make_graph(
        nodes if nodes is not None else [helper.make_node("Identity", ["audio"], ["probabilities"])],
        "graph",
        [helper.make_tensor_value_info("audio", FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", FLOAT, ("batch", 24))],
        tensors or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def refused(content: Any, reason: str) -> None:
    """The bytes, or the model, are refused with this reason, in one line."""
    with pytest.raises(ModelError, match=reason) as caught:
        check_onnx(content if isinstance(content, bytes) else content.SerializeToString())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


# Models that may be loaded


def test_the_built_in_model() -> None:
    content = model.read_model(None)
    metadata = check_onnx(content)
    theirs = onnx.load_from_string(content)
    assert metadata == {entry.key: entry.value for entry in theirs.metadata_props}
    assert {node.op_type for node in theirs.graph.node} <= OPERATORS
    assert check_onnx(content, with_graph=False) == metadata


def test_only_the_built_in_model_skips_the_graph_check(
    tiny_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def note(content: bytes, *, with_graph: bool = True) -> dict[str, str]:
        seen.append(with_graph)
        return check_onnx(content, with_graph=with_graph)

    monkeypatch.setattr(model, "check_onnx", note)
    for path in (tiny_model(tmp_path / "x.onnx"), model.built_in_path(), None):
        model.KeyModel(path, "cpu")
    assert seen == [True, True, False]


KINDS = {np.dtype(kind): kind for kind in ("f4", "u1", "i1", "i4", "i8", "?", "f2", "f8")}
shapes = st.lists(st.integers(0, 3), max_size=4)
names = st.text(max_size=20)


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    """A tensor of any type, raw or as a list of numbers."""
    array = np.zeros(draw(shapes), draw(st.sampled_from(list(KINDS.values()))))
    array[...] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        return numpy_helper.from_array(array, draw(names))
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor(draw(names), kind, array.shape, array.ravel().tolist())


@st.composite
def models(draw: st.DrawFn) -> Any:
    """A model of allowed operators with attributes of all kinds, tensors, shapes, names and metadata."""
    kinds = st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32),
        names,
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
        st.lists(st.floats(width=32), min_size=1, max_size=4),
        st.lists(names, min_size=1, max_size=3),
        tensors(),
        st.lists(tensors(), min_size=1, max_size=2),
    )
    nodes = [
        helper.make_node(
            draw(st.sampled_from(sorted(OPERATORS))),
            draw(st.lists(names, max_size=3)),
            draw(st.lists(names, max_size=2)),
            name=draw(names),
            doc_string=draw(names),
            domain=draw(st.sampled_from(["", "ai.onnx"])),
            **draw(st.dictionaries(st.sampled_from(["axis", "value", "pads"]), kinds, max_size=3)),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    sizes = st.one_of(st.none(), st.text("abc", min_size=1), st.integers(0, MAX_DIMENSION))
    built = model_of(nodes, draw(st.lists(tensors(), max_size=3)), tuple(draw(st.lists(sizes, max_size=4))))
    helper.set_model_props(built, draw(st.dictionaries(names, names, max_size=3)))
    built.producer_name, built.doc_string = draw(names), draw(names)
    return built


@settings(max_examples=150, deadline=None)
@given(models())
def test_plain_models_pass_with_their_metadata(built: Any) -> None:
    assert check_onnx(built.SerializeToString()) == {entry.key: entry.value for entry in built.metadata_props}


def messages(message: Any) -> Iterator[Any]:
    """The message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from messages(part)


@settings(max_examples=400, deadline=None)
@given(models(), st.data())
def test_a_damaged_model_that_passes_is_safe_for_onnx_too(built: Any, data: st.DataObject) -> None:
    content = bytearray(built.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(content)))
        how = data.draw(st.sampled_from(["change", "insert", "cut", "repeat"]))
        if how == "change" and index < len(content):
            content[index] = data.draw(st.integers(0, 255))
        elif how == "insert":
            content[index:index] = data.draw(st.binary(max_size=8))
        elif how == "cut":
            del content[index : index + data.draw(st.integers(0, 8))]
        else:
            content[index:index] = content[index : index + data.draw(st.integers(0, 40))]
    try:
        metadata = check_onnx(bytes(content))
    except ModelError:
        return
    theirs = onnx.ModelProto.FromString(bytes(content))
    assert metadata == {entry.key: entry.value for entry in theirs.metadata_props}
    assert {entry.domain for entry in theirs.opset_import} <= {"", "ai.onnx"}
    for message in messages(theirs):
        assert type(message).__name__ in SCHEMA
        assert {field.number for field, _ in message.ListFields()} <= set(SCHEMA[type(message).__name__])
        if isinstance(message, onnx.NodeProto):
            assert message.op_type in OPERATORS
            assert message.domain in ("", "ai.onnx")
        if isinstance(message, Proto):
            assert message.data_location != Proto.EXTERNAL
            assert not message.external_data
            numpy_helper.to_array(message)  # does not match its shape as it says


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError):
        check_onnx(content)


def test_every_cut_is_noticed(tiny_model: Build, tmp_path: Path) -> None:
    """A truncated file has lost its end; if that was a separate part, its description is lost as well."""
    content = tiny_model(tmp_path / "x.onnx").read_bytes()
    for length in range(len(content)):
        with pytest.raises(ModelError):
            model.describe_model(content[:length])


# Weights that lie elsewhere


def external(tensor: Any, location: str = "weights.bin") -> Any:
    """The tensor, with its numbers in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = Proto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def weights() -> Any:
    return numpy_helper.from_array(np.zeros(4, "f4"), "weights")


@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "../x", "*/_ORT_MEM_ADDR_/*", "file:///x", ""])
def test_weights_in_other_files_or_in_memory(location: str) -> None:
    refused(model_of(tensors=[external(weights(), location)]), "weights in other files")


def test_in_attributes() -> None:
    refused(model_of([helper.make_node("Constant", [], ["c"], value=external(weights()))]), "weights in other files")
    lists = helper.make_node("Constant", [], ["c"], value=[weights(), external(weights())])
    refused(model_of([lists]), "weights in other files")


def test_a_half_declared_external_file_is_refused() -> None:
    located, listed = weights(), weights()
    located.data_location = Proto.EXTERNAL
    listed.external_data.add().key = "location"
    refused(model_of(tensors=[located]), "weights in other files")
    refused(model_of(tensors=[listed]), "weights in other files")


def test_a_declaration_that_is_overridden_is_refused() -> None:
    """The last of two wins in one reader, the first in another."""
    tensor = external(weights()).SerializeToString() + b"\x70\x00"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    refused(b"\x3a" + bytes([len(graph)]) + graph, "weights in other files|duplicate data_location")


# Operators


def test_operators_of_others() -> None:
    refused(model_of([helper.make_node("FusedConv", ["audio"], ["y"], domain="com.microsoft")]), "'com.microsoft'")
    refused(model_of([helper.make_node("Add", ["audio"], ["y"], domain="evil")]), "operators of 'evil'")
    built = model_of()
    built.opset_import.add(domain="ai.onnx.ml", version=3)
    refused(built, "operators of 'ai.onnx.ml'")


@pytest.mark.parametrize("name", ["Loop", "ImageDecoder", "StringSplit", "Expand", "RandomNormal", "add", "", "\x1b"])
def test_operators_that_no_key_model_needs(name: str) -> None:
    refused(model_of([helper.make_node(name, ["audio"], ["y"])]), "operator '.*' is not allowed")


def test_subgraphs() -> None:
    inner = model_of(tensors=[external(weights())]).graph
    node = helper.make_node("If", ["audio"], ["y"], then_branch=inner, else_branch=inner)
    refused(model_of([node]), "field 6 of AttributeProto")
    refused(model_of([helper.make_node("Add", ["audio"], ["y"], body=[inner])]), "field 11 of AttributeProto")


def test_functions_training_and_sparse_tensors() -> None:
    built = model_of()
    built.functions.add(name="f", domain="")
    refused(built, "field 25 of ModelProto")
    built = model_of()
    built.training_info.add()
    refused(built, "field 20 of ModelProto")
    built = model_of()
    built.graph.sparse_initializer.add()
    refused(built, "field 15 of GraphProto")
    built = model_of()
    built.graph.node[0].overload = "mine"
    refused(built, "custom operators")
    built = model_of()
    built.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1])))
    refused(built, "field 4 of TypeProto")


# Sizes


@pytest.mark.parametrize("dims", [(1 << 40,), (-1,), (5,), (2, 2, 2), (3,), (1,) * 9, (MAX_DIMENSION + 1, 0)], ids=str)
def test_a_tensor_with_a_false_size_is_refused(dims: tuple[int, ...]) -> None:
    for tensor in (weights(), helper.make_tensor("w", FLOAT, [4], [0.0] * 4)):
        del tensor.dims[:]
        tensor.dims.extend(dims)
        refused(model_of(tensors=[tensor]), "does not match its shape|axes")


def test_numbers_in_two_fields() -> None:
    tensor = weights()
    tensor.float_data.append(1.0)
    refused(model_of(tensors=[tensor]), "does not match its shape")


@pytest.mark.parametrize("kind", [Proto.STRING, Proto.COMPLEX64, Proto.UNDEFINED, Proto.BFLOAT16, 99])
def test_tensors_of_other_types(kind: int) -> None:
    tensor = weights()
    tensor.data_type = kind
    refused(model_of(tensors=[tensor]), "tensors of type")


@pytest.mark.parametrize("shape", [(1 << 40, 2), (-5,), (1,) * 9])
def test_shapes_out_of_bounds(shape: tuple[int, ...]) -> None:
    refused(model_of(shape=shape), "axes, or an axis")


def test_more_fields_than_can_be_meant() -> None:
    built = model_of()
    built.graph.node[0].input.extend([""] * MAX_FIELDS)
    refused(built, f"more than {MAX_FIELDS} fields")


# Parts that come twice, and bytes that are no ONNX


def test_a_second_graph_and_a_second_description(tiny_model: Build, tmp_path: Path) -> None:
    content = tiny_model(tmp_path / "x.onnx").read_bytes()
    refused(content + onnx.ModelProto(graph=model_of().graph).SerializeToString(), "duplicate graph")
    again = onnx.ModelProto()
    again.metadata_props.add(key="stone", value="{}")
    refused(content + again.SerializeToString(), "duplicate metadata 'stone'")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x0a",
        b"\x3a\x02\x0a",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80" * 20,
        b"\x08" + b"\xff" * 10,
        b"\x0b\x0c",  # a group, as protobuf once had
        b"\x3d\x00\x00\x00\x00",
        b"\x1c\x00\x00\x00ORTM" + bytes(64),  # onnxruntime's own format
        b"PK\x03\x04" + bytes(64),
    ],
    ids=range(10),
)
def test_a_file_that_is_not_onnx(content: bytes) -> None:
    refused(content, "not a (valid |key )?model")


def test_text_that_is_not_utf_8() -> None:
    refused(b"\x72\x06\x0a\x01\xff\x12\x01x", "not UTF-8")


# Limits of onnxruntime


def test_models_in_ort_format_are_refused(
    tiny_model: Build, key_model: KeyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stonecli.model.runtime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "x.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(tiny_model(tmp_path / "x.onnx").read_bytes(), options)
    content = (tmp_path / "x.ort").read_bytes()
    assert content[4:8] == b"ORTM"
    refused(content, "not a (valid |key )?model")
    monkeypatch.setattr(model, "describe_model", lambda *_, **__: key_model.info)  # and if it had not been seen:
    with pytest.raises(ModelError, match="not a model that can be loaded"):
        KeyModel(tmp_path / "x.ort")


DOUBLED = """
import re, sys
from pathlib import Path
import numpy as np
from stonecli.model import session as model
from stonecli.errors import ModelError
model.MAX_MEMORY = 256 << 20
try:
    model.KeyModel(sys.argv[1], "cpu")(np.zeros((1, 2000), dtype=np.float32))
except ModelError as error:
    print(error)
# Not ru_maxrss: it starts with the memory of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
@pytest.mark.parametrize("constant", [True, False], ids=["when it is loaded", "when it runs"])
def test_a_small_graph_cannot_take_all_memory(tmp_path: Path, constant: bool) -> None:
    """Forty doublings of one number would be four terabytes."""
    nodes = [helper.make_node("ReduceMean", ["audio"], ["mean"], keepdims=1)]
    for step in range(40):
        source = ("one" if constant else "mean") if step == 0 else f"x{step}"
        nodes.append(helper.make_node("Concat", [source, source], [f"x{step + 1}"], axis=1))
    nodes += [
        helper.make_node("ReduceMean", ["x40"], ["end"], keepdims=1),
        helper.make_node("Mul", ["end", "row"], ["probabilities"]),
    ]
    row = numpy_helper.from_array(np.ones((1, 24), "f4"), "row")
    built = model_of(nodes, [row, numpy_helper.from_array(np.ones((1, 1), "f4"), "one")])
    description = {
        "format_version": 1, "train_type": "ks_mode", "classes": [key.name for key in Key.all()],
        "corrects_tuning": False, "frames_averaged": 1, "sample_rate": 22050, "window_seconds": 15.0,
        "minimum_samples": 1000, "circle_type": None, "temperature": 1.0, "licence": "", "trained_on": "",
        "checkpoint_sha256": "",
    }  # fmt: skip
    helper.set_model_props(built, {"stone": json.dumps(description)})
    path = tmp_path / "x.onnx"
    path.write_bytes(built.SerializeToString())
    command = [sys.executable, "-c", DOUBLED, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, preexec_fn=_little_memory)
    reason, peak = result.stdout.splitlines()
    assert reason.startswith("the model failed: ")
    assert int(peak) < 1000


def _little_memory() -> None:
    """So that a failure of the test does not end the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
