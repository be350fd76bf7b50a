"""What happens to a device: its connection is cut, its process is killed."""

from __future__ import annotations

import contextlib
import socket
import threading

TORN = """
import os, signal, sys
from pathlib import Path
import msgspec
from device_profiles.federation import SentFile
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from edge_runtime.device.fleet_api import part
address, folder, sha256, size = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
real, written = os.pwrite, 0
def pwrite(file, data, place):
    global written
    written += len(data)
    if written > 7 << 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(file, data, place)
link = Link(address, ca=folder / "ca.crt", key=NodeKey.load(folder / "key"), node_file=folder / "node")
link.activate()
while (incoming := link.pull()) is None:
    link._patience.wait(0.1)
(folder / "incoming").write_bytes(msgspec.json.encode(incoming))
os.pwrite = pwrite
link.fetch(incoming, link.files(incoming)["file"], folder / "fetched", SentFile(bytes=size, sha256=sha256))
"""
"""A process that joins, waits for a message, and is killed in the second chunk of its file.

Its arguments: the address, its folder, the SHA-256 and the size of the file.
"""


class Cutter:
    """A port that leads to the SuperLink, and breaks connections that have brought so many bytes."""

    def __init__(self, port: int, limits: list[int]) -> None:
        self._port = port
        self._limits = limits
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        carried = 0
        try:
            while data := source.recv(1 << 16):
                carried += len(data)
                if self._limits and carried > self._limits[0]:
                    self._limits.pop(0)
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
