"""A SuperLink of the test's own: it answers what real ones answer, and breaks off where it is told to."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from device_profiles.federation import SentFile
from edge_runtime.device.fleet_api import messages as m
from edge_runtime.device.fleet_api.incoming import Incoming
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.fleet_api.objects import ARRAY, ARRAYS, CHUNK, CONFIG, MESSAGE, RECORDS, Stored, object_id
from edge_runtime.device.fleet_api.wire import WireMessage, decode, encode

NODE = 7
SERVER = 1
RUN = 2**63 + 5


class FakeSuperLink:
    """Messages and objects in memory.

    Attributes:
        calls: paths and requests, in order.
        cut: at the next answer to this path, send only so many bytes and close.
        refusals: by path, statuses with bodies that are answered first.
        date: seconds by which its clock is ahead.
        late: by object, how often it is not there yet.
        lost_sessions: how many pushed objects it does not take, as after the end of a session.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.cut: dict[str, int] = {}
        self.refusals: dict[str, list[tuple[int, object]]] = {}
        self.date = 0.0
        self.objects: dict[str, bytes] = {}
        self.late: dict[str, int] = {}
        self.messages: list[m.Metadata] = []
        self.pushed: dict[str, bytes] = {}
        self.reply: m.PushMessagesRequest | None = None
        self.takes_replies = True
        self.sessions = 0
        self.lost_sessions = 0
        self.online = False
        self.pulled: list[str] = []

    def put(self, kind: str, children: tuple[str, ...], body: bytes) -> str:
        """Store an object; its name."""
        content = Stored(kind, children, body).content
        self.objects[object_id(content)] = content
        return object_id(content)

    def put_file(self, data: bytes, chunk_bytes: int = 5 << 20, stype: str = "profl.file") -> str:
        """Store an Array of a file's bytes."""
        chunks = [self.put(CHUNK, (), data[start : start + chunk_bytes]) for start in range(0, len(data), chunk_bytes)]
        children = tuple(dict.fromkeys(chunks))
        places = [children.index(chunk) for chunk in chunks]
        body = {"dtype": "uint8", "shape": [len(data)], "stype": stype, "arraychunk_ids": places}
        return self.put(ARRAY, children, json.dumps(body).encode())

    def send(self, document: bytes, files: dict[str, bytes], *, ttl: float = 600.0, kind: str = "train.task") -> str:
        """Store a message for the node; its name."""
        values = (
            m.ConfigItem(key="json", value=m.ConfigRecordValue(bytes=document)),
            m.ConfigItem(key="signature", value=m.ConfigRecordValue(bytes=b"signed")),
        )
        order = self.put(CONFIG, (), encode(m.ConfigRecord(items=values)))
        arrays = {name: self.put_file(data) for name, data in files.items()}
        held = self.put(ARRAYS, tuple(dict.fromkeys(arrays.values())), json.dumps(arrays).encode())
        records = self.put(RECORDS, (order, held), json.dumps({"profl": order, "files": held}).encode())
        metadata = m.Metadata(
            run_id=RUN, src_node_id=SERVER, dst_node_id=NODE, ttl=ttl, message_type=kind, created_at=time.time()
        )
        name = self.put(MESSAGE, (records,), encode(m.Message(metadata=metadata)))
        self.messages.append(
            m.Metadata(**{f.name: getattr(metadata, f.name) for f in m.Metadata.FIELDS} | {"message_id": name})
        )
        return name

    def answer(self, path: str, body: bytes) -> WireMessage:
        """What a real one would answer."""
        if path == "activate-node":
            self.online = True
            return m.ActivateNodeResponse(node_id=NODE)
        if path == "send-node-heartbeat":
            return m.SendNodeHeartbeatResponse(success=True)
        if path == "pull-messages":
            waiting = [self.messages.pop(0)] if self.messages else []
            return m.PullMessagesResponse(messages_list=tuple(m.Message(metadata=one) for one in waiting))
        if path == "pull-object":
            return self._pull_object(decode(m.PullObjectRequest, body).object_id)
        if path == "push-messages":
            self.reply = decode(m.PushMessagesRequest, body)
            self.sessions += 1
            lacking = _names(self.reply.message_object_trees[0]) if self.takes_replies else []
            names = tuple(name for name in lacking if name not in self.pushed)
            return m.PushMessagesResponse(objects_to_push=names, session_id=f"session {self.sessions}")
        if path == "push-object":
            return self._push_object(decode(m.PushObjectRequest, body))
        return m.ConfirmMessageReceivedResponse()

    def _pull_object(self, name: str) -> m.PullObjectResponse:
        if name not in self.objects:
            return m.PullObjectResponse()
        if self.late.get(name, 0):
            self.late[name] -= 1
            return m.PullObjectResponse(object_found=True)
        self.pulled.append(name)
        return m.PullObjectResponse(object_found=True, object_available=True, object_content=self.objects[name])

    def _push_object(self, request: m.PushObjectRequest) -> m.PushObjectResponse:
        if self.lost_sessions:
            self.lost_sessions -= 1
            return m.PushObjectResponse(stored=False)
        assert object_id(request.object_content) == request.object_id
        self.pushed[request.object_id] = request.object_content
        return m.PushObjectResponse(stored=True)


def pulled(link: Link, fake: FakeSuperLink, files: dict[str, bytes], ttl: float = 600.0) -> Incoming:
    """A message with these files, as a device has it."""
    fake.send(b'{"task": 1}', files, ttl=ttl)
    incoming = link.pull()
    assert incoming is not None
    return incoming


def sent(folder: Path, data: bytes) -> SentFile:
    """What an order says of a file with these bytes."""
    (folder / "expected").write_bytes(data)
    return SentFile.of(folder / "expected")


def _names(tree: m.ObjectTree) -> list[str]:
    return [name for child in tree.children for name in _names(child)] + [tree.object_id]


@contextlib.contextmanager
def serve(fake: FakeSuperLink, certificates: Path | None = None, port: int = 0) -> Iterator[str]:
    """Listen on loopback, with TLS where there are certificates; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            path = self.path.removeprefix("/v1/fleet/")
            body = self.rfile.read(int(self.headers["content-length"]))
            fake.calls.append((path, body))
            refused = fake.refusals.get(path)
            if refused:
                status, said = refused.pop(0)
                return self._send(status, said if isinstance(said, bytes) else json.dumps(said).encode())
            return self._send(200, encode(fake.answer(path, body)), fake.cut.pop(path, None))

        def _send(self, status: int, data: bytes, cut: int | None = None) -> None:
            self.send_response_only(status)
            self.send_header("date", formatdate(time.time() + fake.date, usegmt=True))
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if cut is None else data[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", port), Handler)
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
