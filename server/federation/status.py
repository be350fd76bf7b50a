"""What is known of a federation now: its SuperLink, its devices, its run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from device_profiles.errors import ExecutionError
from server.federation.activity import Activity, DeviceActivity
from server.federation.flower.control import Node, control
from server.federation.home.current_run import current_run
from server.federation.home.devices import Device, read_devices
from server.federation.home.folder import FederationFolder
from server.federation.processes import running
from server.federation.progress import RunFollower, RunProgress

_PATIENCE = 2
"""Heartbeats after which Flower takes a node for gone."""
_MOST_TEXT = 80
"""Characters of a text that a device sent."""


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One device.

    Attributes:
        connection: `online`, `offline`, `never connected`, or `not registered` before the SuperLink knows it; `unknown`
            where the SuperLink is not running.
        connected_since, last_heard: seconds of the epoch, None where it never was.
        budget_bytes: what it said that it may use, or the limit that it was invited with; None where neither is known.
        doing, task, since: as the engine said last (`server.federation.activity`). Where no run goes on, a device that
            is online is `idle`, and nobody knows of others ("").
        last: what became of its last task.
    """

    name: str
    connection: str
    node_id: int | None = None
    connected_since: float | None = None
    last_heard: float | None = None
    budget_bytes: int | None = None
    doing: str = ""
    task: str = ""
    since: float | None = None
    last: str = ""


class FederationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A federation at `written_at`, seconds of the epoch; `problem` is why the SuperLink could not be asked."""

    folder: str
    up: bool
    written_at: float
    devices: tuple[DeviceStatus, ...]
    address: str = ""
    run: RunProgress | None = None
    round: int = 0
    flower_run: int | None = None
    accuracies: tuple[tuple[int, float], ...] = ()
    problem: str = ""

    @property
    def online(self) -> int:
        """Devices that are connected."""
        return sum(device.connection == "online" for device in self.devices)


class StatusReader:
    """Looks again and again; `run` is the run's folder where the federation was not given it by this machine."""

    def __init__(self, folder: FederationFolder, run: Path | None = None) -> None:
        self._folder = folder
        self._run = run
        self._follower: RunFollower | None = None

    def read(self) -> FederationStatus:
        """What is known now. Raises FormatError where a file of the federation itself cannot be read."""
        devices = read_devices(self._folder).devices
        state, nodes, problem, trains = running(self._folder), None, "", False
        if state is not None:
            try:
                with control(self._folder, state.inner_port) as superlink:
                    nodes = superlink.nodes()
                    trains = any(not run.is_finished for run in superlink.runs())
            except ExecutionError as error:
                problem = str(error)
        given = current_run(self._folder)
        folder = self._run if self._run is not None else Path(given.folder) if given is not None else None
        progress, activity = self._follow(folder)
        return FederationStatus(
            folder=str(self._folder.path),
            up=state is not None,
            written_at=time.time(),
            devices=tuple(_devices(devices, nodes, activity, goes_on=trains)),
            address=state.address if state is not None else "",
            run=progress,
            round=activity.round if activity is not None else 0,
            flower_run=given.flower_run if given is not None and self._run is None else None,
            accuracies=self._accuracies(),
            problem=problem,
        )

    def _follow(self, folder: Path | None) -> tuple[RunProgress | None, Activity | None]:
        if folder is None:
            return None, None
        if self._follower is None or self._follower.folder != folder:
            self._follower = RunFollower(folder)
        return self._follower.read()

    def _accuracies(self) -> tuple[tuple[int, float], ...]:
        points = self._follower.points if self._follower is not None else []
        return tuple((p.round, p.accuracy) for p in points if p.accuracy is not None and not p.failed)


def _devices(
    devices: Sequence[Device], nodes: Sequence[Node] | None, activity: Activity | None, *, goes_on: bool
) -> Iterable[DeviceStatus]:
    by_key = {node.public_key: node for node in nodes or ()}
    doing = {one.node_id: one for one in activity.devices} if activity is not None else {}
    for device in devices:
        node = by_key.get(device.public_key)
        now = doing.get(node.node_id if node is not None else device.node_id or 0)
        yield _device(device, node, now, asked=nodes is not None, goes_on=goes_on)


def _device(
    device: Device, node: Node | None, now: DeviceActivity | None, *, asked: bool, goes_on: bool
) -> DeviceStatus:
    heard = None
    if node is not None and node.online_until is not None:
        heard = node.online_until - (_PATIENCE * node.heartbeat_seconds if node.status == "online" else 0.0)
    connection = _connection(node, asked=asked)
    otherwise = "idle" if connection == "online" else ""
    return DeviceStatus(
        name=device.name,
        connection=connection,
        node_id=node.node_id if node is not None else device.node_id,
        connected_since=node.online_since if node is not None and node.status == "online" else None,
        last_heard=heard,
        budget_bytes=now.budget_bytes if now is not None and now.budget_bytes else device.memory_limit_bytes,
        doing=now.state if now is not None and goes_on else otherwise,
        task=bounded(now.task) if now is not None and goes_on else "",
        since=now.since if now is not None and goes_on else None,
        last=bounded(now.last) if now is not None else "",
    )


def _connection(node: Node | None, *, asked: bool) -> str:
    if not asked:
        return "unknown"
    if node is None:
        return "not registered"
    return "never connected" if node.status == "registered" else node.status


def bounded(text: str) -> str:
    """A text of strangers in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_TEXT else f"{line[: _MOST_TEXT - 1]}…"
