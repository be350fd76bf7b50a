"""Keeps `federation.json` of a run: what every device is doing, for whoever watches."""

from __future__ import annotations

import time
from pathlib import Path

from device_profiles.task import Task
from device_profiles.work import Growing
from server.engines.flower.device import Device
from server.engines.flower.devices import Devices
from server.federation.activity import Activity, DeviceActivity, State, write_activity
from server.fleet.structure import Structure


class ActivityFile:
    """Written whole whenever something changes; `flower_run` is Flower's number of the run."""

    def __init__(self, output: Path, devices: Devices, structure: Structure, run: str, flower_run: int | None) -> None:
        self._output = output
        self._devices = devices
        self._structure = structure
        self._run = run
        self._flower_run = flower_run
        self._task: Task | None = None
        self._known: dict[str, DeviceActivity] = {}

    def write(self, task: Task | None) -> None:
        """`task`: one of the round that goes on, None where that is the same as before."""
        self._task = task or self._task
        now = time.time()
        found = {device.name: self._of(device, now) for device in self._devices.all() if device.name}
        for name, last in self._known.items():
            if name not in found:
                gone = DeviceActivity(name=name, node_id=last.node_id, state="gone", since=now, last=last.last)
                found[name] = last if last.state == "gone" else gone
        self._known = dict(sorted(found.items()))
        known = self._task
        write_activity(
            self._output,
            Activity(
                run=self._run,
                flower_run=self._flower_run,
                written_at=now,
                devices=tuple(self._known.values()),
                stage="" if known is None else _stage(known),
                block=0 if known is None else self._structure.block(known.work),
                # A round's weights are called by the number of the round before it.
                round=0 if known is None else int(known.base_version.partition("-")[0]) + 1,
            ),
        )

    def _of(self, device: Device, now: float) -> DeviceActivity:
        last, state = self._known.get(device.name), _state(device)
        same = last is not None and (last.state, last.task) == (state, device.task)
        return DeviceActivity(
            name=device.name,
            node_id=device.node,
            state=state,
            since=last.since if last is not None and same else now,
            budget_bytes=device.budget_bytes,
            task=device.task,
            last=device.last,
        )


def _stage(task: Task) -> str:
    """What the rounds call it: whatever run of units a device trains, the step grows."""
    return "grow" if isinstance(task.work, Growing) else task.work.kind


def _state(device: Device) -> State:
    if device.task:
        return "training"
    if device.profiling:
        return "profiling"
    if device.busy is not None:
        return "busy"
    return "idle" if device.there else "asked"
