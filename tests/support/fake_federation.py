"""An engine `flower` with the nodes of a fake grid."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from device_profiles.task import Task
from device_profiles.work import Work, grow
from server.engines.flower.device import Device
from server.engines.flower.devices import Devices
from server.engines.flower.engine import Basis, FlowerEngine
from server.engines.flower.inbox import Inbox
from server.engines.flower.mail import Mail
from server.engines.flower.parcels import Parcels
from server.engines.flower.signing import OrderKey
from server.fleet.client import Client
from server.fleet.fleet import TrainingSettings
from server.fleet.structure import Structure
from server.rounds.seam import Event
from tests.support.fake_grid import FakeGrid, Node, golden_bundle
from tests.support.fake_run import MANIFEST

WORK = grow(MANIFEST.partition, 1)
NEEDS = {program.work.name: 1 << 20 for program in MANIFEST.programs}
KEY = ec.generate_private_key(ec.SECP256R1())


class Federation:
    """An engine with the nodes of a fake grid."""

    def __init__(self, folder: Path, nodes: dict[int, Node], **settings: Any) -> None:
        self.folder = folder
        self.grid = FakeGrid(folder / "nodes", nodes)
        self.bundle = golden_bundle(folder / "bundle")
        self.said: list[str] = []
        mail = Mail(self.grid, OrderKey(KEY))
        self.inbox = Inbox(mail)
        self.parcels = Parcels(self.bundle)
        self.devices = Devices(
            mail,
            self.inbox,
            run="run-1",
            release="1",
            calibration=self.parcels.whole,
            folder=folder / "profiles",
            named=lambda node: None,
            threads=1,
            note=self.said.append,
        )
        self.engine = FlowerEngine(
            run="run-1",
            mail=mail,
            inbox=self.inbox,
            devices=self.devices,
            basis=Basis(self.parcels, Structure.of(MANIFEST), _client),
            settings=TrainingSettings(**settings),
            folder=folder / "clients",
        )

    def ready(self, count: int) -> list[Client]:
        """Wait until so many devices are there."""
        until(lambda: self.look() is not None and len(self.engine.clients()) == count)
        return list(self.engine.clients())

    def look(self) -> list[Event]:
        """What happened since the last time."""
        return list(self.engine.events(time.monotonic()))

    def task(self, client: str, *, work: Work = WORK, attempt: int = 0, weights: Path | None = None) -> Task:
        return Task(
            client=client,
            work=work,
            weights=weights or self.bundle.weights_path(),
            base_version="0-abc",
            steps=2,
            epochs=None,
            learning_rate=0.1,
            seed=7,
            attempt=attempt,
        )

    def done(self, *tasks: Task, seconds: float = 10.0) -> list[Event]:
        self.engine.submit(tasks)
        return list(self.engine.events(time.monotonic() + seconds))


def _client(device: Device) -> Client:
    return Client(name=device.name, budget_bytes=device.budget_bytes, needs=NEEDS, examples=device.examples)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
