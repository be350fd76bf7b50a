"""The wire format: what is read back, what is skipped, and that nothing but FormatError comes of other bytes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.errors import FormatError
from edge_runtime.device.fleet_api import messages
from edge_runtime.device.fleet_api.objects import ARRAY, Stored, chunks_of
from edge_runtime.device.fleet_api.source import Answer, Source, read_object_answer
from edge_runtime.device.fleet_api.wire import (
    MAX_VALUES,
    MESSAGE,
    STRING,
    UINT64,
    Field,
    WireMessage,
    decode,
    encode,
)

CLASSES = [
    cls for cls in vars(messages).values() if isinstance(cls, type) and issubclass(cls, WireMessage) and cls.FIELDS
]
READ = (messages.PullMessagesResponse, messages.ConfigRecord, messages.PushMessagesResponse, messages.ObjectTree)


class Other(WireMessage, frozen=True):
    """A later version of `Node`, with more fields."""

    node_id: int = 0
    name: str = ""
    more: int = 0

    FIELDS: ClassVar = (Field(1, "node_id", UINT64), Field(900, "name", STRING), Field(901, "more", UINT64))


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_take_no_bytes(cls: type[WireMessage]) -> None:
    assert encode(cls()) == b""
    assert decode(cls, b"") == cls()


def test_what_is_set_to_its_default_is_written_where_presence_counts() -> None:
    value = messages.ConfigRecordValue(bytes=b"")
    assert encode(value) == b"\x32\x00"
    assert decode(messages.ConfigRecordValue, encode(value)).bytes == b""
    metadata = messages.Metadata(src_task_id=0)
    assert decode(messages.Metadata, encode(metadata)) == metadata != messages.Metadata()


def test_unknown_fields_are_skipped() -> None:
    assert decode(messages.Node, encode(Other(node_id=4, name="x" * 300, more=2**64 - 1))) == messages.Node(node_id=4)


def test_a_field_of_another_wire_type_counts_as_unknown() -> None:
    assert decode(messages.Node, b"\x0a\x01x") == messages.Node()


@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
def test_signed_numbers_come_back(code: int, reason: str) -> None:
    error = messages.Error(code=code, reason=reason)
    assert decode(messages.Error, encode(error)) == error


@given(st.lists(st.floats(allow_nan=False), max_size=5))
def test_packed_and_single_numbers_are_read(seconds: list[float]) -> None:
    packed = messages.PushMessagesRequest(clientapp_runtime_list=tuple(seconds))
    assert decode(messages.PushMessagesRequest, encode(packed)) == packed


@settings(max_examples=300)
@given(st.sampled_from(READ), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_one_error(cls: type[WireMessage], data: bytes) -> None:
    try:
        decode(cls, data)
    except FormatError as error:
        assert "\n" not in str(error)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_message_is_read_or_refused_with_one_error(data: st.DataObject) -> None:
    item = messages.ConfigItem(key="json", value=messages.ConfigRecordValue(bytes=b"x" * 40))
    good = bytearray(encode(messages.ConfigRecord(items=(item, item))))
    for place in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=4)):
        good[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(FormatError):
        decode(messages.ConfigRecord, bytes(good[:cut]))


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a number is missing
        b"\x08" + b"\xff" * 11,  # of more than ten bytes
        b"\x0a\xff\xff\xff\xff\x7f",  # gigabytes that are not there
        b"\x0b\x0c",  # a group
        b"\x00\x01",  # number 0
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(messages.ConfigRecord, data)


def test_nesting_and_the_number_of_values_are_bounded() -> None:
    tree = b""
    for _ in range(40):
        tree = b"\x12" + bytes([len(tree)]) + tree
    with pytest.raises(FormatError, match="nested"):
        decode(messages.ObjectTree, tree)
    with pytest.raises(FormatError, match="more than"):
        decode(messages.ObjectTree, b"\x12\x00" * (MAX_VALUES + 1))


class Body:
    """An HTTP answer that comes in pieces; `length` is what its header says is missing."""

    def __init__(self, data: bytes, piece: int, missing: int = 0) -> None:
        self._data, self._piece = data, piece
        self.length: int | None = len(data) + missing

    def readinto(self, buffer: memoryview) -> int:
        piece = self._data[: min(self._piece, len(buffer))]
        buffer[: len(piece)] = piece
        self._data = self._data[len(piece) :]
        self.length -= len(piece)
        return len(piece)


def _read(data: bytes, piece: int = 7, missing: int = 0) -> tuple[Answer, bytes]:
    held = bytearray()

    def sink(size: int, pieces: Iterator[memoryview]) -> None:
        for one in pieces:
            held.extend(one)
        assert len(held) == size

    return read_object_answer(Source(Body(data, piece, missing), bytearray(16)), sink), bytes(held)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 20))
def test_an_object_is_streamed(content: bytes, piece: int) -> None:
    answer = messages.PullObjectResponse(object_found=True, object_available=True, object_content=content)
    assert _read(encode(answer), piece) == (Answer.WHOLE, content)


def test_an_object_may_be_missing_or_on_its_way() -> None:
    assert _read(b"")[0] is Answer.MISSING
    assert _read(encode(messages.PullObjectResponse(object_found=True)))[0] is Answer.AWAITED


def test_a_cut_connection_is_told_from_a_bad_answer() -> None:
    answer = messages.PullObjectResponse(object_found=True, object_available=True, object_content=b"x" * 99)
    with pytest.raises(ConnectionError):
        _read(encode(answer)[:50], missing=53)
    with pytest.raises(FormatError):
        _read(encode(answer)[:50])


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_any_answer_is_read_or_refused_with_one_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        _read(data)


@settings(max_examples=300)
@given(st.binary(max_size=80), st.sampled_from([b"", b"Array  ", b"Array " + b"a" * 64 + b" "]))
def test_any_object_is_read_or_refused_with_one_error(body: bytes, start: bytes) -> None:
    try:
        chunks_of(Stored.parse(start + b"%d\0" % len(body) + body, ARRAY))
    except FormatError as error:
        assert "\n" not in str(error)


def test_an_object_is_what_flwr_makes_of_it() -> None:
    child = hashlib.sha256(b"x").hexdigest()
    content = Stored("RecordDict", (child, child), b"{}").content
    assert content == f"RecordDict {child},{child} 2\0{{}}".encode()
    assert Stored.parse(content, "RecordDict") == Stored("RecordDict", (child, child), b"{}")


def test_a_declaration_names_its_fields() -> None:
    for cls in CLASSES:
        assert [field.name for field in cls.FIELDS] == list(cls.__struct_fields__)
        assert all(field.message or cls is messages.ObjectTree for field in cls.FIELDS if field.kind == MESSAGE)
