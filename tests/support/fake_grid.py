"""A federation without a network: Flower's messages, nodes that answer them as a test says, and a bundle to send."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load, save_file

from device_profiles.contract import MANIFEST_NAME
from device_profiles.federation import (
    BUNDLE_FOLDER,
    FILES,
    JSON,
    ORDER,
    QUERY_DEVICE,
    QUERY_PROFILE,
    UPDATE_FILE,
    WEIGHTS_FOLDER,
    DeviceAnswer,
    ProfileAnswer,
    SentFile,
    TrainAnswer,
    TrainOrder,
)
from device_profiles.files import from_json, read_json, write_json
from device_profiles.manifest import FileEntry, Manifest
from device_profiles.profile import DeviceProfile
from device_profiles.task import Result
from device_profiles.update import UpdateMetadata
from device_profiles.work import block_of, parse_work
from edge_runtime.device.prepare.bundle import Bundle, open_bundle
from server.averaging.tensor_files import save_tensors
from server.engines.flower.mail import file_array
from server.engines.flower.post import Gone, Listed
from tests.support.fake_run import MANIFEST, initial_weights

GOLDEN_PROFILE = read_json(Path(__file__).resolve().parents[1] / "golden" / "profile.json", DeviceProfile)


def golden_bundle(folder: Path) -> Bundle:
    """A bundle with the golden manifest's programs, which hold no instructions."""
    random = np.random.default_rng(0)
    tensors = {
        name: random.standard_normal(value.shape).astype(value.dtype) for name, value in initial_weights().items()
    }
    (folder / "programs").mkdir(parents=True)
    (folder / "weights").mkdir()
    save_file(tensors, folder / "weights" / "initial.safetensors")
    for program in MANIFEST.programs:
        (folder / "programs" / f"{program.name}.pte").write_bytes(program.name.encode())
    entries = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sent = SentFile.of(path)
        entries.append(FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=sent.bytes, sha256=sent.sha256))
    write_json(folder / "manifest.json", msgspec.structs.replace(MANIFEST, files=tuple(entries)))
    return open_bundle(folder)


@dataclasses.dataclass
class Node:
    """One device. `train` makes the answer to an order from the honest one; `None` is none at all. `took`: the orders
    that it says that it took, None where it does not count them; it loses as many as `loses`."""

    name: str
    budget_bytes: int = 2 << 20
    examples: int = 100
    profile: DeviceProfile | None = GOLDEN_PROFILE
    measured: DeviceProfile | None = None
    busy: str | None = None
    train: Callable[[Message, Message], Message | None] = lambda order, honest: honest
    orders: list[TrainOrder] = dataclasses.field(default_factory=list)
    asked: list[str] = dataclasses.field(default_factory=list)
    took: list[str] | None = None
    loses: int = 0


class FakeGrid:
    """Flower's `Grid` as the engine uses it; `nodes` are connected, by number."""

    def __init__(self, folder: Path, nodes: Mapping[int, Node]) -> None:
        # Messages carry the identity of the process that Flower has started.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self.nodes = dict(nodes)
        self.sent: list[Message] = []
        self.refuses: set[int] = set()
        self.forgets: dict[int, int] = {}
        """Nodes, and how often what goes to them is forgotten while it is sent."""
        self.broken: set[int] = set()
        """Nodes whose answers are not what their names say."""
        self.late: set[str] = set()
        """Objects that have not arrived yet."""
        self._folder = folder
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._replies: dict[str, Callable[[], Message]] = {}
        self._objects: dict[str, dict[str, InflatableObject]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def pull_answer(self, message_id: str) -> Listed | None:
        with self._lock:
            make = self._replies.pop(message_id, None)
        if make is None:
            return None
        reply = make()
        name = reply.object_id
        self._objects[name] = get_all_nested_objects(reply)
        if reply.metadata.src_node_id in self.broken:
            self._objects[name][name] = ConfigRecord({"no": "message"})
        return Listed(name, reply.metadata.src_node_id)

    def pull_object(self, object_id: str) -> bytes | None:
        for objects in list(self._objects.values()):
            if object_id in objects:
                return None if object_id in self.late else objects[object_id].deflate()
        raise Gone("it was confirmed")

    def confirm(self, object_id: str) -> None:
        self._objects.pop(object_id, None)

    @property
    def kept(self) -> int:
        """Answers that were told, and not confirmed."""
        return len(self._objects)

    def answer(self, message_id: str, reply: Message) -> None:
        """What comes later than at once."""
        with self._lock:
            self._replies[message_id] = lambda: reply

    def _push(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        if node in self.refuses:
            raise RuntimeError("the node's key is odd")
        if self.forgets.get(node, 0) > 0:
            self.forgets[node] -= 1
            raise ObjectPushError("file", 1, "session")
        number = f"message-{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = number
        self.sent.append(message)
        if node in self.nodes:
            reply = self._reply(self.nodes[node], message)
            if reply is not None:
                with self._lock:
                    self._replies[number] = reply
        return number

    def _reply(self, node: Node, message: Message) -> Callable[[], Message] | None:
        kind = message.metadata.message_type
        node.asked.append(kind)
        if kind == QUERY_DEVICE:
            answer: Any = DeviceAnswer(
                name=node.name,
                release="1",
                budget_bytes=node.budget_bytes,
                examples=node.examples,
                profile=node.profile,
                busy=node.busy,
                took=None if node.took is None else tuple(node.took),
                ignorable=("took",),
            )
            return lambda: documented(message, answer)
        if node.loses:
            node.loses -= 1
            return None
        if node.took is not None:
            node.took.append(message.metadata.message_id)
        if kind == QUERY_PROFILE:
            status = "ok" if node.measured is not None else "its memory is full"
            return lambda: documented(message, ProfileAnswer(status=status, profile=node.measured))
        order = msgspec.json.decode(message.content[ORDER][JSON], type=TrainOrder)
        node.orders.append(order)
        update = self._update(order, message, node.examples)
        if node.train(message, documented(message, _answer(order, update), update)) is None:
            return None

        def made() -> Message:
            reply = node.train(message, documented(message, _answer(order, update), update))
            assert reply is not None
            return reply

        return made

    def _update(self, order: TrainOrder, message: Message, examples: int) -> Path:
        """A file as an honest device writes it: every tensor a little beside what it was."""
        files = {name: array.data for name, array in message.content[FILES].items()}
        weights = load(files["bundle/weights/initial.safetensors"])
        for name in order.weights:
            weights |= load(files[name])
        work = parse_work(order.work)
        manifest = from_json(files[BUNDLE_FOLDER + MANIFEST_NAME], Manifest, "bundle")
        program = next(program for program in manifest.programs if program.work == work)
        random = np.random.default_rng([order.seed, *order.client.encode()])
        tensors = {
            t.name: weights[t.name] + random.standard_normal(t.shape, np.float32) / 100
            for t in program.tensors
            if t.role != "optimizer_state"
        }
        tensors |= {name: np.abs(tensor) for name, tensor in tensors.items() if name.endswith("running_var")}
        metadata = UpdateMetadata(
            block=block_of(work, manifest.partition),
            program=program.name,
            examples=examples,
            steps=order.steps or 1,
            base_version=order.base_version,
            loss_first=2.0,
            loss_last=1.0,
        )
        path = self._folder / f"{order.client}-{order.attempt}.safetensors"
        save_tensors(path, tensors, metadata.to_strings())
        return path


def documented(message: Message, document: Any, update: Path | None = None) -> Message:
    """A reply with a document, and an update where there is one."""
    content = RecordDict({ORDER: ConfigRecord({JSON: msgspec.json.encode(document)})})
    if update is not None:
        content[FILES] = ArrayRecord({UPDATE_FILE: file_array(update.read_bytes())})
    return Message(content, reply_to=message)


def failing(message: Message, code: int) -> Message:
    """A reply that says an error of Flower's."""
    return Message(Error(code, "no reason"), reply_to=message)


def _answer(order: TrainOrder, update: Path) -> TrainAnswer:
    fetched = sum(file.bytes for name, file in order.files.items() if name.startswith(WEIGHTS_FOLDER))
    result = Result(
        client=order.client, status="ok", seconds=1.0, measured_peak_bytes=1 << 20, bytes_down=fetched or 1000
    )
    return TrainAnswer(run=order.run, attempt=order.attempt, result=result, update=SentFile.of(update))
