"""Protocol Buffers (proto3) for messages that are declared as structs; what is not declared is skipped.

A declaration is a `WireMessage` with its `FIELDS`. A field whose default is None is written wherever it is set; another
one where it differs from its default. Of proto3 there is no more than flwr's messages need: no groups, no maps, and a
message that occurs twice in a field of one replaces the first instead of being merged with it.

Reading allocates no more than a small multiple of its input, and raises FormatError for everything that it cannot read.
"""

from __future__ import annotations

import struct
from typing import ClassVar, NamedTuple, TypeVar

import msgspec

from device_profiles.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_DEPTH = 16
MAX_VALUES = 50_000
"""Values of one answer, those of its parts included: each costs up to 200 bytes of memory."""

UINT64, SINT64, BOOL, DOUBLE, STRING, BYTES, MESSAGE = (
    "uint64",
    "sint64",
    "bool",
    "double",
    "string",
    "bytes",
    "message",
)
VARINT_TYPE, FIXED64_TYPE, LENGTH_TYPE, FIXED32_TYPE = 0, 1, 2, 5
_WIRE_TYPES = {UINT64: VARINT_TYPE, SINT64: VARINT_TYPE, BOOL: VARINT_TYPE, DOUBLE: FIXED64_TYPE}
_MASK = (1 << 64) - 1
_MAX_FIELD_NUMBER = (1 << 29) - 1
_DOUBLE = struct.Struct("<d")


class Field(NamedTuple):
    """A field: `message` is the class of a MESSAGE, None where it is the class that holds it."""

    number: int
    name: str
    kind: str
    message: type[WireMessage] | None = None
    repeated: bool = False

    @property
    def wire_type(self) -> int:
        """How its value is written, where it is not packed."""
        return _WIRE_TYPES.get(self.kind, LENGTH_TYPE)


class WireMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message; its attributes are named as in flwr's `.proto` files."""

    FIELDS: ClassVar[tuple[Field, ...]] = ()


Wire = TypeVar("Wire", bound=WireMessage)


def varint(value: int) -> bytes:
    """A number of at most 64 bits."""
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    """What stands in front of a value."""
    return varint(number << 3 | wire_type)


def encode(message: WireMessage) -> bytes:
    """The bytes of a message, its fields in the order of their numbers."""
    out = bytearray()
    for field, default in zip(message.FIELDS, _defaults(type(message)), strict=True):
        value = getattr(message, field.name)
        if field.repeated:
            out += _encode_repeated(field, value)
        elif value is not None and (default is None or value != default):
            out += tag(field.number, field.wire_type) + _encode_value(field, value)
    return bytes(out)


def _defaults(cls: type[WireMessage]) -> list[Any]:
    by_name = dict(zip(cls.__struct_fields__, cls.__struct_defaults__, strict=True))
    return [by_name[field.name] for field in cls.FIELDS]


def _encode_repeated(field: Field, values: tuple[Any, ...]) -> bytes:
    if field.wire_type != LENGTH_TYPE and values:
        packed = b"".join(_encode_value(field, value) for value in values)
        return tag(field.number, LENGTH_TYPE) + varint(len(packed)) + packed
    return b"".join(tag(field.number, field.wire_type) + _encode_value(field, value) for value in values)


def _encode_value(field: Field, value: Any) -> bytes:
    if field.kind == DOUBLE:
        return _DOUBLE.pack(value)
    if field.kind == SINT64:
        return varint(value << 1 ^ value >> 63)
    if field.wire_type == VARINT_TYPE:
        return varint(int(value))
    data = encode(value) if field.kind == MESSAGE else value.encode() if field.kind == STRING else value
    return varint(len(data)) + data


def decode(cls: type[Wire], data: bytes | bytearray | memoryview) -> Wire:
    """A message out of its bytes. Raises FormatError."""
    return _decode(cls, memoryview(data).cast("B"), _Left(), depth=0)


class _Left:
    """How many values may still be read."""

    def __init__(self) -> None:
        self.values = MAX_VALUES

    def take(self) -> None:
        self.values -= 1
        if self.values < 0:
            raise FormatError(f"a message has more than {MAX_VALUES} values")


def _decode(cls: type[Wire], data: memoryview, left: _Left, depth: int) -> Wire:
    if depth > MAX_DEPTH:
        raise FormatError(f"a message is nested more than {MAX_DEPTH} deep")
    fields = {field.number: field for field in cls.FIELDS}
    values: dict[str, Any] = {}
    for number, wire_type, value in _raw_fields(data):
        field = fields.get(number)
        if field is None or (wire_type != field.wire_type and not (field.repeated and wire_type == LENGTH_TYPE)):
            continue
        found = values.setdefault(field.name, []) if field.repeated else None
        for item in _unpacked(field, wire_type, value):
            left.take()
            read = _decode_value(cls, field, item, left, depth)
            if found is None:
                values[field.name] = read
            else:
                found.append(read)
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _raw_fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    place = 0
    while place < len(data):
        head, place = _read_varint(data, place)
        number, wire_type = head >> 3, head & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise FormatError(f"a message has a field of number {number}")
        if wire_type == VARINT_TYPE:
            value, place = _read_varint(data, place)
            yield number, wire_type, value
            continue
        if wire_type == LENGTH_TYPE:
            size, place = _read_varint(data, place)
        elif wire_type in (FIXED64_TYPE, FIXED32_TYPE):
            size = 8 if wire_type == FIXED64_TYPE else 4
        else:
            raise FormatError(f"a message has a field of wire type {wire_type}")
        if size > len(data) - place:
            raise FormatError("a message ends in the middle of a field")
        yield number, wire_type, data[place : place + size]
        place += size


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise FormatError("a message ends in the middle of a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, place
    raise FormatError("a message has a number of more than ten bytes")


def _unpacked(field: Field, wire_type: int, value: int | memoryview) -> Iterator[int | memoryview]:
    if wire_type == field.wire_type or isinstance(value, int):
        yield value
    elif field.wire_type == FIXED64_TYPE:
        if len(value) % 8:
            raise FormatError(f"{field.name} is no row of numbers of eight bytes")
        yield from (value[start : start + 8] for start in range(0, len(value), 8))
    else:
        place = 0
        while place < len(value):
            number, place = _read_varint(value, place)
            yield number


def _decode_value(cls: type[WireMessage], field: Field, value: int | memoryview, left: _Left, depth: int) -> Any:
    if isinstance(value, int):
        if field.kind == SINT64:
            return value >> 1 ^ -(value & 1)
        return bool(value) if field.kind == BOOL else value
    if field.kind == DOUBLE:
        return _DOUBLE.unpack(value)[0]
    if field.kind == MESSAGE:
        return _decode(field.message or cls, value, left, depth + 1)
    if field.kind == BYTES:
        return bytes(value)
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{field.name} is not UTF-8") from None
