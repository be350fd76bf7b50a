"""The messages that a device declares are those of the flwr that servers install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: profl-edge[federation]")
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.constant import (
    FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE,
    HEARTBEAT_DEFAULT_INTERVAL,
    HEARTBEAT_MAX_INTERVAL,
    HEARTBEAT_MIN_INTERVAL,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
    ErrorCode,
)
from flwr.proto import error_pb2, fleet_pb2, heartbeat_pb2, message_pb2, node_pb2, recorddict_pb2
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.version import package_version
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.device.fleet_api import connection, membership, messages, objects, replying, source
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.wire import (
    BOOL,
    BYTES,
    DOUBLE,
    MESSAGE,
    SINT64,
    STRING,
    UINT64,
    Field,
    WireMessage,
    decode,
    encode,
)

MODULES = (fleet_pb2, message_pb2, heartbeat_pb2, node_pb2, recorddict_pb2, error_pb2)
TYPES = {
    UINT64: FieldDescriptor.TYPE_UINT64,
    SINT64: FieldDescriptor.TYPE_SINT64,
    BOOL: FieldDescriptor.TYPE_BOOL,
    DOUBLE: FieldDescriptor.TYPE_DOUBLE,
    STRING: FieldDescriptor.TYPE_STRING,
    BYTES: FieldDescriptor.TYPE_BYTES,
    MESSAGE: FieldDescriptor.TYPE_MESSAGE,
}
OTHER_NAMES = {"ConfigItem": "ConfigRecord.Item"}
CLASSES = {
    cls.__name__: cls
    for cls in vars(messages).values()
    if isinstance(cls, type) and issubclass(cls, WireMessage) and cls is not WireMessage
}


def _theirs(name: str) -> Any:
    outer, _, inner = OTHER_NAMES.get(name, name).partition(".")
    cls = next(getattr(module, outer) for module in MODULES if outer in module.DESCRIPTOR.message_types_by_name)
    return getattr(cls, inner) if inner else cls


def test_flwr_is_the_version_that_the_device_speaks() -> None:
    assert package_version.startswith("1.41.")


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_has_its_number_and_type(name: str) -> None:
    descriptor: Descriptor = _theirs(name).DESCRIPTOR
    for field in CLASSES[name].FIELDS:
        theirs = descriptor.fields_by_number[field.number]
        assert (field.name, TYPES[field.kind], field.repeated) == (theirs.name, theirs.type, theirs.is_repeated)
        if field.kind == MESSAGE:
            assert _theirs((field.message or CLASSES[name]).__name__).DESCRIPTOR is theirs.message_type
        elif not field.repeated:
            default = dict(zip(CLASSES[name].__struct_fields__, CLASSES[name].__struct_defaults__, strict=True))[
                field.name
            ]
            assert (default is None) == theirs.has_presence


VALUES: dict[str, st.SearchStrategy[Any]] = {
    UINT64: st.integers(0, 2**64 - 1),
    SINT64: st.integers(-(2**63), 2**63 - 1),
    BOOL: st.booleans(),
    DOUBLE: st.floats(allow_nan=False),
    STRING: st.text(max_size=8),
    BYTES: st.binary(max_size=8),
}


def _values(cls: type[WireMessage], depth: int = 3) -> st.SearchStrategy[Any]:
    return st.builds(cls, **{field.name: _value(cls, field, depth) for field in cls.FIELDS})


def _value(cls: type[WireMessage], field: Field, depth: int) -> st.SearchStrategy[Any]:
    if field.kind == MESSAGE and not depth:
        return st.just(()) if field.repeated else st.none()
    one = _values(field.message or cls, depth - 1) if field.kind == MESSAGE else VALUES[field.kind]
    if field.repeated:
        return st.lists(one, max_size=2).map(tuple)
    return st.none() | one if field.kind == MESSAGE else one


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_flwr_reads_what_a_device_writes_and_the_other_way_round(name: str, data: st.DataObject) -> None:
    ours = data.draw(_values(CLASSES[name]))
    theirs = _theirs(name).FromString(encode(ours))
    again = decode(CLASSES[name], theirs.SerializeToString())
    if name in ("ConfigRecordValue", "ConfigItem", "ConfigRecord"):
        return  # flwr keeps one of a value's alternatives: that nothing is raised is all there is to see
    assert again == decode(CLASSES[name], encode(ours))
    assert len(theirs.SerializeToString(deterministic=True)) == len(encode(again))


def test_constants_are_flwrs() -> None:
    assert objects.CHUNK_BYTES == FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
    assert membership.HEARTBEAT_SECONDS == HEARTBEAT_DEFAULT_INTERVAL
    assert membership.FIRST_HEARTBEAT_SECONDS == HEARTBEAT_MIN_INTERVAL
    assert membership.MOST_HEARTBEAT_SECONDS <= HEARTBEAT_MAX_INTERVAL
    assert connection._AHEAD_SECONDS == SYSTEM_TIME_TOLERANCE
    assert connection._BEHIND_SECONDS == SYSTEM_TIME_TOLERANCE + TIMESTAMP_TOLERANCE
    assert connection._RUN_STATUS_NOT_ALLOWED == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED
    assert connection._ACTIVATION_FAILED == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
    assert replying.CLIENT_FAILED == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert TIMESTAMP_HEADER == "flwr-timestamp"
    assert FLEET_HTTP_PUBLIC_KEY_HEADER == "flwr-public-key"
    assert FLEET_HTTP_SIGNATURE_HEADER == "flwr-signature"


def test_fields_that_are_streamed_have_flwrs_numbers() -> None:
    pulled = message_pb2.PullObjectResponse.DESCRIPTOR.fields_by_name
    assert pulled["object_found"].number == source._FOUND
    assert pulled["object_available"].number == source._AVAILABLE
    assert pulled["object_content"].number == source._CONTENT
    pushed = message_pb2.PushObjectRequest.DESCRIPTOR.fields_by_name
    assert pushed["object_content"].number == replying._CONTENT_FIELD
    assert pushed["session_id"].number == replying._SESSION_FIELD


def test_a_public_key_is_written_as_flwr_compares_and_reads_it(tmp_path: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import bytes_to_private_key, public_key_to_bytes

    key = NodeKey.create(tmp_path / "key")
    theirs = bytes_to_private_key((tmp_path / "key").read_bytes())
    assert key.public_pem == public_key_to_bytes(theirs.public_key())
    (tmp_path / "key.pub").write_text(key.public_line)
    assert try_load_public_key(tmp_path / "key.pub") == key.public_pem


def test_objects_are_named_and_written_as_flwr_does() -> None:
    data = bytes(11 << 20) + b"end"
    array = Array("uint8", (len(data),), "profl.file", data)
    stored = objects.Stored.parse(array.deflate(), objects.ARRAY)
    body, chunks = objects.chunks_of(stored)
    assert body.stype == "profl.file" and body.shape == (len(data),)
    assert chunks == tuple(name for name, _ in array.slice_array())
    assert objects.object_id(stored.content) == array.object_id
    chunk = array.slice_array()[-1][1].deflate()
    assert chunk == objects.head(objects.CHUNK, (), (1 << 20) + 3) + data[10 << 20 :]
    config = ConfigRecord({"json": b"{}", "number": 4, "signature": b"s", "list": [1.0, 2.0]})
    held = decode(messages.ConfigRecord, objects.Stored.parse(config.deflate(), objects.CONFIG).body)
    assert {item.key: item.value.bytes for item in held.items if item.value} == {
        "json": b"{}",
        "number": None,
        "signature": b"s",
        "list": None,
    }
    records = RecordDict({"profl": config, "files": ArrayRecord({"a": array})})
    assert objects.Stored.parse(records.deflate(), objects.RECORDS).children == tuple(records.children)
