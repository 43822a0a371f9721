"""The fields of an ONNX file as they lie in its bytes: a reader that trusts nothing, for :mod:`stonecli.model.guard`.

ONNX files are Protocol Buffers (onnx.proto; the wire format is protobuf.dev/programming-guides/encoding). Here is the
part of that format that a key model needs, and no more: whatever else a file holds is refused, so that onnxruntime,
which reads all of it, meets nothing that was not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from stonecli.errors import ModelError

MAX_FIELDS = 1_000_000  # in one file; the built-in model has about 5,000

# Message -> number of a field -> its name and kind: an integer, bytes, another message, or numbers of so many bytes
# each ("varint": as many as they need). A star: it may come more than once. Left out on purpose: subgraphs, functions,
# sparse tensors, sequences, maps and optionals, training, devices, quantization. They are refused where they occur.
SCHEMA: dict[str, dict[int, tuple[str, str]]] = {
    "ModelProto": {
        1: ("ir_version", "int"),
        2: ("producer_name", "bytes"),
        3: ("producer_version", "bytes"),
        4: ("domain", "bytes"),
        5: ("model_version", "int"),
        6: ("doc_string", "bytes"),
        7: ("graph", "GraphProto"),
        8: ("opset_import", "*OperatorSetIdProto"),
        14: ("metadata_props", "*StringStringEntryProto"),
    },
    "OperatorSetIdProto": {1: ("domain", "bytes"), 2: ("version", "int")},
    "StringStringEntryProto": {1: ("key", "bytes"), 2: ("value", "bytes")},
    "GraphProto": {
        1: ("node", "*NodeProto"),
        2: ("name", "bytes"),
        5: ("initializer", "*TensorProto"),
        10: ("doc_string", "bytes"),
        11: ("input", "*ValueInfoProto"),
        12: ("output", "*ValueInfoProto"),
        13: ("value_info", "*ValueInfoProto"),
        16: ("metadata_props", "*StringStringEntryProto"),
    },
    "NodeProto": {
        1: ("input", "*bytes"),
        2: ("output", "*bytes"),
        3: ("name", "bytes"),
        4: ("op_type", "bytes"),
        5: ("attribute", "*AttributeProto"),
        6: ("doc_string", "bytes"),
        7: ("domain", "bytes"),
        8: ("overload", "bytes"),
        9: ("metadata_props", "*StringStringEntryProto"),
    },
    "AttributeProto": {
        1: ("name", "bytes"),
        2: ("f", "float"),
        3: ("i", "int"),
        4: ("s", "bytes"),
        5: ("t", "TensorProto"),
        7: ("floats", "*4"),
        8: ("ints", "*varint"),
        9: ("strings", "*bytes"),
        10: ("tensors", "*TensorProto"),
        13: ("doc_string", "bytes"),
        20: ("type", "int"),
    },
    "TensorProto": {
        1: ("dims", "*varint"),
        2: ("data_type", "int"),
        4: ("float_data", "*4"),
        5: ("int32_data", "*varint"),
        7: ("int64_data", "*varint"),
        8: ("name", "bytes"),
        9: ("raw_data", "bytes"),
        10: ("double_data", "*8"),
        12: ("doc_string", "bytes"),
        13: ("external_data", "*StringStringEntryProto"),
        14: ("data_location", "int"),
        16: ("metadata_props", "*StringStringEntryProto"),
    },
    "ValueInfoProto": {
        1: ("name", "bytes"),
        2: ("type", "TypeProto"),
        3: ("doc_string", "bytes"),
        4: ("metadata_props", "*StringStringEntryProto"),
    },
    "TypeProto": {1: ("tensor_type", "Tensor"), 6: ("denotation", "bytes")},
    "Tensor": {1: ("elem_type", "int"), 2: ("shape", "TensorShapeProto")},
    "TensorShapeProto": {1: ("dim", "*Dimension")},
    "Dimension": {1: ("dim_value", "int"), 2: ("dim_param", "bytes"), 3: ("denotation", "bytes")},
}

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_CONTINUED = bytes(range(128, 256))  # bytes of a varint after which it goes on


class Field:
    """One field of a message.

    Attributes:
        name: as in onnx.proto.
        value: of an integer, as a signed 64-bit number; 0 for all else.
        data: of bytes and of messages, a view into the file; of numbers, the view that holds them; else empty.
        count: how many numbers ``data`` or ``value`` holds.
    """

    __slots__ = ("count", "data", "name", "value")

    def __init__(self, name: str, value: int, data: memoryview, count: int) -> None:
        self.name, self.value, self.data, self.count = name, value, data, count

    def text(self) -> str:
        """``data`` as text.

        Raises:
            ModelError: it is not UTF-8.
        """
        try:
            return str(self.data, "utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"not a model: its {self.name} is not UTF-8") from error

    def integers(self) -> list[int]:
        """The varints in ``data``, or ``value`` where there is one without packing; signed 64-bit numbers."""
        if not len(self.data):
            return [self.value] * self.count
        numbers, place = [], 0
        while place < len(self.data):
            number, place = _varint(self.data, place)
            numbers.append(_signed(number))
        return numbers


class Reader:
    """Reads messages of one file, in all no more than ``MAX_FIELDS`` fields."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def fields(self, data: memoryview, message: str) -> Iterator[Field]:
        """The fields of a message in their order.

        Raises:
            ModelError: the bytes are damaged, or hold what is not in ``SCHEMA``, or too much.
        """
        schema, seen, place = SCHEMA[message], set(), 0
        while place < len(data):
            self._left -= 1
            if self._left < 0:
                raise ModelError(f"not a key model: more than {MAX_FIELDS} fields")
            tag, place = _varint(data, place)
            number, wire = tag >> 3, tag & 7
            if number not in schema:
                raise ModelError(f"not a model that is taken: no key model needs field {number} of its {message}")
            name, kind = schema[number]
            if not kind.startswith("*"):
                if number in seen:  # readers would put the two together, each in its own way
                    raise ModelError(f"not a model: two of {name} in its {message}")
                seen.add(number)
            field, place = _field(data, place, name, kind.removeprefix("*"), wire)
            yield field


def _field(data: memoryview, place: int, name: str, kind: str, wire: int) -> tuple[Field, int]:
    """The field that begins at ``place``, and where the next one does."""
    if wire == _LENGTH and kind not in ("int", "float"):
        length, place = _varint(data, place)
        content, place = _take(data, place, length)
        return Field(name, 0, content, _packed(content, kind)), place
    if wire == _VARINT and kind in ("int", "varint"):
        number, place = _varint(data, place)
        return Field(name, _signed(number), data[:0], 1), place
    if wire == _FOUR_BYTES and kind in ("float", "4"):
        return Field(name, 0, data[:0], 1), _take(data, place, 4)[1]
    if wire == _EIGHT_BYTES and kind == "8":
        return Field(name, 0, data[:0], 1), _take(data, place, 8)[1]
    raise ModelError(f"not a model: its {name} is no {kind}")


def _packed(data: memoryview, kind: str) -> int:
    """How many numbers of a kind lie side by side in ``data``; 1 for what are no numbers."""
    if kind == "varint":
        if len(data) and data[-1] >= 128:
            raise ModelError("not a model: it is cut off within a number")
        return len(bytes(data).translate(None, _CONTINUED))
    if kind in ("4", "8"):
        count, rest = divmod(len(data), int(kind))
        if rest:
            raise ModelError("not a model: it is cut off within a number")
        return count
    return 1


def _take(data: memoryview, place: int, length: int) -> tuple[memoryview, int]:
    if length > len(data) - place:
        raise ModelError("not a model that is whole: it is cut off, or damaged")
    return data[place : place + length], place + length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number of at most 64 bits at ``place``, and the place behind it."""
    number = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if number >> 64:
                break
            return number, place
        shift += 7
    raise ModelError("not a model that is whole: it is cut off, or damaged")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
