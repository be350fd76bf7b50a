"""A device of a federation without processes: its child ends when a test says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_runtime.device.federation.child import OwnUse
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.journal import Journal
from edge_runtime.device.federation.permission import Permission
from edge_runtime.device.federation.pressure import MemoryPressure
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.state import StateFolder
from edge_runtime.device.federation.store import FileStore
from edge_runtime.device.limits.processes import Outcome
from tests.support.federation_client import MEGABYTE

REPORT = {
    "steps": 7,
    "examples": 30,
    "interrupted": False,
    "loss_first": 2.0,
    "loss_last": 1.0,
    "measured_peak_bytes": 5,
    "more": [1],
}


class FakeChild:
    """A training process that does as a test says."""

    made: list[FakeChild]

    def __init__(self, command: list[str], *, limit_bytes: int, said: Path, complaint: Path) -> None:
        self.command, self.limit_bytes, self.said = command, limit_bytes, said
        self.calls: list[str] = []
        self.stopping = False
        self.over = False
        self.returncode = 0
        self.words = ""
        self.made.append(self)

    def pause(self) -> None:
        self.calls.append("pause")

    def go_on(self) -> None:
        self.calls.append("go on")

    def stop(self) -> None:
        self.stopping = True
        self.calls.append("stop")

    def kill(self) -> None:
        self.calls.append("kill")

    def ended(self) -> bool:
        return self.over

    def last_words(self) -> str:
        return self.words

    def outcome(self) -> Outcome:
        return Outcome(returncode=self.returncode, limit_kind="rlimit", oom_kills=0, cgroup_peak_bytes=None)

    def used_seconds(self) -> float:
        return 0.0

    def finish(self, **changed: Any) -> None:
        """End, with an update where nothing else is said."""
        self.over = True
        self.said.write_text(json.dumps({**REPORT, **changed}))
        (self.said.parent / "update.safetensors").write_bytes(b"update")


def fake_device(folder: Path) -> Device:
    """With a budget of 100 MB, its state in `folder`."""
    state = StateFolder(folder / "state")
    state.make()
    state.finish()
    root = folder / "root"
    return Device(
        settings=Settings(name="bench", address="localhost:1", data="digits", limit_bytes=128 * MEGABYTE, threads=2),
        state=state,
        store=FileStore(state.files, 1 << 20),
        journal=Journal(),
        permission=Permission((), root=root),
        pressure=MemoryPressure(root),
        release="1",
        examples=30,
        budget=lambda: 100 * MEGABYTE,
        peak=lambda: 27 * MEGABYTE,
        use=OwnUse(),
    )
