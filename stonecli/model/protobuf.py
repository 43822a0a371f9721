"""Read the fields of an untrusted ONNX file, for :mod:`stonecli.model.guard`.

ONNX files are Protocol Buffers (onnx.proto; the wire format is protobuf.dev/programming-guides/encoding). This module
supports only the part of the format that a key model needs, and refuses everything else, so that onnxruntime never
parses a field that was not checked.
"""

from __future__ import annotations

from collections.abc import Iterator

from stonecli.errors import ModelError

MAX_FIELDS = 1_000_000  # per file; the built-in model has about 5,000

# Message -> field number -> name and kind: an integer, bytes, another message, or packed numbers of that many bytes
# ("varint": of variable length). A star marks a repeated field. Not supported on purpose, and so refused: subgraphs,
# functions, sparse tensors, sequences, maps and optionals, training, devices, quantization.
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
_CONTINUED = bytes(range(128, 256))  # bytes of a varint that are not its last


class Field:
    """One field of a message.

    Attributes:
        name: as in onnx.proto.
        value: value of an integer field as a signed 64-bit number; 0 for other fields.
        data: view into the file with the content of bytes, messages and packed numbers; else empty.
        count: number of values in ``data`` or ``value``.
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
            raise ModelError(f"not a valid model file: its {self.name} is not UTF-8") from error

    def integers(self) -> list[int]:
        """The varints in ``data``, or ``value`` if the field is not packed; signed 64-bit numbers."""
        if not len(self.data):
            return [self.value] * self.count
        numbers, position = [], 0
        while position < len(self.data):
            number, position = _varint(self.data, position)
            numbers.append(_signed(number))
        return numbers


class Reader:
    """Reads the messages of one file, at most ``MAX_FIELDS`` fields in total."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def fields(self, data: memoryview, message: str) -> Iterator[Field]:
        """The fields of a message in order.

        Raises:
            ModelError: the bytes are damaged, or contain a field that is not in ``SCHEMA``, or too many fields.
        """
        schema, seen, position = SCHEMA[message], set(), 0
        while position < len(data):
            self._left -= 1
            if self._left < 0:
                raise ModelError(f"not a key model: more than {MAX_FIELDS} fields")
            tag, position = _varint(data, position)
            number, wire = tag >> 3, tag & 7
            if number not in schema:
                raise ModelError(f"not a key model: field {number} of {message} is not allowed")
            name, kind = schema[number]
            if not kind.startswith("*"):
                if number in seen:  # readers merge duplicates in different ways
                    raise ModelError(f"not a valid model file: duplicate {name} in its {message}")
                seen.add(number)
            field, position = _field(data, position, name, kind.removeprefix("*"), wire)
            yield field


def _field(data: memoryview, position: int, name: str, kind: str, wire: int) -> tuple[Field, int]:
    """The field at offset ``position``, and the offset of the next one."""
    if wire == _LENGTH and kind not in ("int", "float"):
        length, position = _varint(data, position)
        content, position = _take(data, position, length)
        return Field(name, 0, content, _packed(content, kind)), position
    if wire == _VARINT and kind in ("int", "varint"):
        number, position = _varint(data, position)
        return Field(name, _signed(number), data[:0], 1), position
    if wire == _FOUR_BYTES and kind in ("float", "4"):
        return Field(name, 0, data[:0], 1), _take(data, position, 4)[1]
    if wire == _EIGHT_BYTES and kind == "8":
        return Field(name, 0, data[:0], 1), _take(data, position, 8)[1]
    raise ModelError(f"not a valid model file: damaged, or another kind of file ({name} is not of type {kind})")


def _packed(data: memoryview, kind: str) -> int:
    """The number of packed numbers of a kind in ``data``; 1 if the kind is not numeric."""
    if kind == "varint":
        if len(data) and data[-1] >= 128:
            raise ModelError("not a valid model file: truncated within a number")
        return len(bytes(data).translate(None, _CONTINUED))
    if kind in ("4", "8"):
        count, rest = divmod(len(data), int(kind))
        if rest:
            raise ModelError("not a valid model file: truncated within a number")
        return count
    return 1


def _take(data: memoryview, position: int, length: int) -> tuple[memoryview, int]:
    if length > len(data) - position:
        raise ModelError("not a valid model file: damaged or truncated")
    return data[position : position + length], position + length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number of at most 64 bits at offset ``position``, and the offset after it."""
    number = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if number >> 64:
                break
            return number, position
        shift += 7
    raise ModelError("not a valid model file: damaged or truncated")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
