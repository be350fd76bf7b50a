"""An answer that arrives object by object: it is taken up where it stood, and never held as a whole."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="answers are Flower's messages")

import msgspec
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from device_profiles.federation import FILE_TYPE, FILES, JSON, ORDER, UPDATE_FILE, SentFile
from edge_runtime.device.fleet_api.objects import Stored, object_id
from server.engines.flower import arriving as arriving_module
from server.engines.flower.arriving import Arriving, Reply, Wanted
from server.engines.flower.mail import file_array
from server.engines.flower.post import Gone, Listed

NODE = 12
CHUNK = 5 << 20


class Store:
    """A SuperLink with one answer, whose objects lie in files and arrive when a test says so."""

    def __init__(self, folder: Path, reply: Message) -> None:
        self.folder = folder
        self.root = reply.object_id
        self.sender = NODE
        self.asked: list[str] = []
        self.given: list[str] = []
        self.confirmed: list[str] = []
        self.kinds: dict[str, str] = {}
        for name, thing in get_all_nested_objects(reply).items():
            (folder / name).write_bytes(thing.deflate())
            self.kinds[name] = type(thing).__name__
        self.here = set(self.kinds)

    def of(self, kind: str) -> list[str]:
        return [name for name, found in self.kinds.items() if found == kind]

    def get_node_ids(self) -> list[int]:
        return [NODE]

    def push_messages(self, messages: object) -> list[str]:
        raise AssertionError

    def pull_answer(self, message_id: str) -> Listed | None:
        return Listed(self.root, self.sender)

    def pull_object(self, object_id: str) -> bytes | None:
        self.asked.append(object_id)
        if not (self.folder / object_id).exists():
            raise Gone("gone")
        if object_id not in self.here:
            return None
        self.given.append(object_id)
        return (self.folder / object_id).read_bytes()

    def confirm(self, object_id: str) -> None:
        self.confirmed.append(object_id)


def _answer(document: bytes = b"{}", **files: Array) -> Message:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, NODE
    order = Message(RecordDict(), NODE, "train.task")
    order.metadata.__dict__["_message_id"] = "0" * 64
    content = RecordDict({ORDER: ConfigRecord({JSON: document})})
    if files:
        content[FILES] = ArrayRecord({name.replace("_", "."): array for name, array in files.items()})
    return Message(content, reply_to=order)


@pytest.fixture
def update(tmp_path: Path) -> Path:
    path = tmp_path / "update"
    path.write_bytes(os.urandom(3 * CHUNK + 99))
    return path


@pytest.fixture
def store(tmp_path: Path, update: Path) -> Store:
    (tmp_path / "store").mkdir()
    return Store(tmp_path / "store", _answer(update_safetensors=file_array(update.read_bytes())))


def _wanted(tmp_path: Path, stated: SentFile) -> Wanted:
    return Wanted(tmp_path / "arrived", lambda document: stated)


def _finished(answer: Arriving) -> Reply:
    reply = answer.look()
    assert reply is not None
    return reply


def test_it_goes_on_where_it_stood_whenever_more_has_arrived(store: Store, update: Path, tmp_path: Path) -> None:
    everything, store.here = store.here, set()
    answer = Arriving(store, "x", NODE, _wanted(tmp_path, SentFile.of(update)))
    for name in reversed(list(store.kinds)):  # parents first
        assert answer.look() is None and not store.confirmed
        store.here.add(name)
    assert store.here == everything
    reply = _finished(answer)
    assert reply.file is not None and reply.file.read_bytes() == update.read_bytes()
    assert store.confirmed == [store.root]
    assert sorted(store.given) == sorted(everything)
    assert [path.name for path in tmp_path.glob("arrived*")] == ["arrived"]


def test_a_large_update_is_never_in_memory(store: Store, update: Path, tmp_path: Path) -> None:
    tracemalloc.start()
    assert _finished(Arriving(store, "x", NODE, _wanted(tmp_path, SentFile.of(update)))).file is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * CHUNK, f"{peak / 2**20:.1f} MB for a file of three chunks"


def test_the_rest_of_an_answer_that_goes_away_ends_it(store: Store, update: Path, tmp_path: Path) -> None:
    missing = store.of("ArrayChunk")[-1]
    store.here.remove(missing)
    answer = Arriving(store, "x", NODE, _wanted(tmp_path, SentFile.of(update)))
    assert answer.look() is None
    (store.folder / missing).unlink()
    assert _finished(answer).error == "its answer did not arrive whole"
    assert store.confirmed == [store.root] and not list(tmp_path.glob("arrived*"))


def test_one_that_does_not_go_on_is_given_up(
    store: Store, update: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.here.remove(store.of("ArrayRecord")[0])
    monkeypatch.setattr(arriving_module, "PATIENCE_SECONDS", -1.0)
    reply = _finished(Arriving(store, "x", NODE, _wanted(tmp_path, SentFile.of(update))))
    assert reply.error == "its answer did not arrive whole"


def test_what_the_document_forbids_is_not_fetched(store: Store, tmp_path: Path) -> None:
    def stated(document: bytes) -> SentFile:
        raise arriving_module.FormatError("too large")

    reply = _finished(Arriving(store, "x", NODE, Wanted(tmp_path / "arrived", stated)))
    assert reply.error == "too large" and store.confirmed == [store.root]
    assert not {*store.of("ArrayRecord"), *store.of("Array"), *store.of("ArrayChunk")} & set(store.asked)


def test_a_file_that_is_not_the_stated_one_is_refused_and_nothing_is_left_of_it(
    store: Store, update: Path, tmp_path: Path
) -> None:
    stated = SentFile.of(update)
    for other, said in (
        (SentFile(bytes=stated.bytes - 1, sha256=stated.sha256), "not what it says that it sent"),
        (SentFile(bytes=stated.bytes, sha256="0" * 64), "was damaged on the way"),
    ):
        reply = _finished(Arriving(store, "x", NODE, _wanted(tmp_path, other)))
        assert reply.error is not None and said in reply.error and reply.file is None
        assert not list(tmp_path.glob("arrived*"))
    chunk = store.of("ArrayChunk")[1]
    (store.folder / chunk).write_bytes((store.folder / chunk).read_bytes()[:-1] + b"\0")
    reply = _finished(Arriving(store, "x", NODE, _wanted(tmp_path, stated)))
    assert reply.error == "unreadable answer: its update was damaged on the way"


@pytest.mark.parametrize("kind", ["Message", "RecordDict", "ConfigRecord", "ArrayRecord", "Array", "ArrayChunk"])
def test_an_object_that_is_none_is_a_reason_of_one_line(store: Store, update: Path, tmp_path: Path, kind: str) -> None:
    for content in (b"", b"\xff" * 999, b"Message  0\0", b"ArrayChunk  7\0"):
        (store.folder / store.of(kind)[0]).write_bytes(content)
        reply = _finished(Arriving(store, "x", NODE, _wanted(tmp_path, SentFile.of(update))))
        assert reply.error is not None and reply.error.startswith("unreadable answer: ") and "\n" not in reply.error
        assert not list(tmp_path.glob("arrived*"))


def test_files_of_another_name_or_type_are_not_taken(tmp_path: Path, update: Path) -> None:
    content = update.read_bytes()
    for number, files in enumerate(
        (
            {},
            {"other_safetensors": file_array(content)},
            {"update_safetensors": Array("uint8", (len(content),), "numpy.ndarray", content)},
            {"update_safetensors": Array("uint8", (1,), FILE_TYPE, content)},
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        reply = _finished(Arriving(Store(folder, _answer(**files)), "x", NODE, _wanted(folder, SentFile.of(update))))
        assert reply.error == "unreadable answer: its update is not what it says that it sent"


def test_chunks_without_end_are_not_asked_for(tmp_path: Path) -> None:
    """A file of some bytes in thousands of empty chunks."""
    store = Store(tmp_path, _answer(update_safetensors=file_array(b"x" * 100)))

    def put(kind: str, children: tuple[str, ...], body: object) -> str:
        content = Stored(kind, children, body if isinstance(body, bytes) else msgspec.json.encode(body)).content
        (tmp_path / object_id(content)).write_bytes(content)
        store.here.add(object_id(content))
        return object_id(content)

    empty = put("ArrayChunk", (), b"")
    said = {"dtype": "uint8", "shape": [100], "stype": FILE_TYPE, "arraychunk_ids": [0] * 5000}
    array = put("Array", (empty,), said)
    files = put("ArrayRecord", (array,), {UPDATE_FILE: array})
    (order,) = store.of("ConfigRecord")
    records = put("RecordDict", (order, files), {ORDER: order, FILES: files})
    store.root = put("Message", (records,), b"")
    reply = _finished(Arriving(store, "x", NODE, _wanted(tmp_path, SentFile(bytes=100, sha256="0" * 64))))
    assert reply.error == "unreadable answer: its update is not what it says that it sent"
    assert empty not in store.asked
