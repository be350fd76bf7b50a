"""Documents of a federation between releases: what one does not know it refuses, or ignores where it is told to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from device_profiles.errors import FormatError
from device_profiles.federation import (
    DeviceAnswer,
    DeviceQuestion,
    Document,
    ProfileAnswer,
    ProfileOrder,
    SentFile,
    TrainAnswer,
    TrainOrder,
    read_document,
)
from device_profiles.task import Result

_FILE = SentFile(bytes=3, sha256="0" * 64)
_DOCUMENTS: tuple[Document, ...] = (
    DeviceQuestion(release="1"),
    DeviceAnswer(name="pi", release="1", budget_bytes=1, examples=2, took=("a",)),
    ProfileOrder(run="run", files={"bundle/manifest.json": _FILE}),
    ProfileAnswer(status="no"),
    TrainOrder(
        run="run",
        client="pi",
        attempt=0,
        work="head-units2",
        files={"bundle/manifest.json": _FILE},
        weights=(),
        base_version="0-a",
        learning_rate=0.1,
        seed=1,
        promise_bytes=5,
    ),
    TrainAnswer(run="run", attempt=0, result=Result(client="pi", status="ok", seconds=1.0), update=_FILE),
)


def _newer(kind: type[Document], default: Any = 0) -> type[Document]:
    """The same document in a release that has one field more."""
    return msgspec.defstruct(kind.__name__, [("patience", int, default)], bases=(kind,), frozen=True, kw_only=True)


def _grown(document: Document, **more: Any) -> Document:
    return _newer(type(document))(**msgspec.structs.asdict(document), **more)


@pytest.fixture(params=_DOCUMENTS, ids=lambda document: type(document).__name__)
def document(request: pytest.FixtureRequest) -> Document:
    found: Document = request.param
    return found


def test_a_new_field_that_is_not_used_is_not_sent_to_a_release_without_it(document: Document) -> None:
    sent = msgspec.json.encode(_grown(document))
    assert read_document(sent, type(document), "order") == document


def test_one_that_is_used_is_refused_with_what_to_do(document: Document) -> None:
    sent = msgspec.json.encode(_grown(document, patience=3))
    with pytest.raises(
        FormatError, match=r"^order: patience: is not known here; install the same release of"
    ) as caught:
        read_document(sent, type(document), "order")
    assert "\n" not in str(caught.value)


def test_one_that_may_be_ignored_is(document: Document) -> None:
    grown = _grown(document, patience=3)
    sent = msgspec.json.encode(msgspec.structs.replace(grown, ignorable=("patience",)))
    read = read_document(sent, type(document), "order")
    assert msgspec.structs.replace(read, ignorable=()) == document


def test_a_document_of_an_earlier_release_has_the_defaults_of_what_it_lacks(document: Document) -> None:
    newer = _newer(type(document), default=7)
    read = read_document(msgspec.json.encode(document), newer, "order")
    assert getattr(read, "patience") == 7  # noqa: B009  # a field that only this test gives it
    assert all(getattr(read, name) == getattr(document, name) for name in document.__struct_fields__)


def test_nothing_that_is_known_can_be_ignored(document: Document) -> None:
    raw = msgspec.json.decode(msgspec.json.encode(document)) | {"ignorable": list(document.__struct_fields__)}
    first = next(name for name in raw if name not in ("ignorable", "version"))
    with pytest.raises(FormatError, match=rf"^order: .*{first}"):
        read_document(msgspec.json.encode(raw | {first: []}), type(document), "order")


def test_another_meaning_of_a_document_is_another_version(document: Document) -> None:
    sent = msgspec.json.encode(msgspec.structs.replace(document, version=2, ignorable=("version",)))
    with pytest.raises(FormatError, match=r"^order: is of version 2, this release knows up to 1; install the same"):
        read_document(sent, type(document), "order")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"3", b"{", b'{"version": -1}', b'{"ignorable": 1}', b"\xff", b"[" * 99999]
)
def test_what_is_no_document_is_refused_in_one_line(raw: bytes) -> None:
    with pytest.raises(FormatError, match=r"^order: ") as caught:
        read_document(raw, TrainOrder, "order")
    assert "\n" not in str(caught.value)
