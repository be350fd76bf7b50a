"""Method `planned` on this machine: a few programs are measured under each client's limit, the steps are chosen from
what all the others are predicted to need, and the programs that this takes are exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from device_profiles.errors import FormatError
from device_profiles.manifest import Program
from device_profiles.model import Partition
from device_profiles.predict import predict
from device_profiles.profile import DeviceProfile
from device_profiles.promise import promise_of_prediction
from device_profiles.work import Growing, Head, Joint, suffixes
from edge_runtime.device.prepare.bundle import Bundle
from server.engines.local.bundles import run_bundle
from server.fleet.fleet import Fleet
from server.planner.run_programs import RunPrograms, works_by_end
from server.planner.steps import Group, Steps, choose_steps, kept_steps
from server.planner.tables import steps_table

Note = Callable[[str], None]
_NEVER = 1 << 62
"""Bytes of what a client cannot be asked for."""


def calibration_bundle(fleet: Fleet, output: Path) -> Bundle:
    """Programs of all sizes, to measure: the head alone, the last unit, the later half of the units, all of them."""
    units = len(RunPrograms(fleet.model, fleet.training).units)
    firsts = sorted({units - 1, units // 2, 0}, reverse=True)
    works: tuple[Growing, ...] = (
        Head(last_unit=units - 1),
        *(Joint(first_unit=first, last_unit=units - 1) for first in firsts),
    )
    return run_bundle(fleet, output / "calibration", partition=Partition.ending_with([units - 1]), works=works)


def planned_bundle(
    fleet: Fleet, output: Path, note: Note, profiles: Mapping[str, DeviceProfile], examples: Mapping[str, int]
) -> Bundle:
    """The programs that the plan takes. `profiles` are of the calibration's programs, `examples` those that each client
    has.

    Raises ExecutionError where no client holds anything.
    """
    programs = RunPrograms(fleet.model, fleet.training)
    promises = {name: _promise_on(profile, fleet.margin, examples[name]) for name, profile in profiles.items()}
    partition = _chosen(fleet, output, note, programs, promises)
    works = tuple(_held(fleet, partition, programs, promises))
    return run_bundle(fleet, output / "bundle", partition=partition, works=works)


def _promise_on(profile: DeviceProfile, margin: float, examples: int) -> Callable[[Program], int]:
    """What any program is promised to need on a device; it can do nothing where nothing that was measured fitted."""

    def promise(program: Program) -> int:
        try:
            return promise_of_prediction(predict(program, profile, examples=examples), margin)
        except FormatError:
            return _NEVER

    return promise


def _chosen(
    fleet: Fleet,
    output: Path,
    note: Note,
    programs: RunPrograms,
    promises: Mapping[str, Callable[[Program], int]],
) -> Partition:
    """The fleet file's partition, or that of the steps that are chosen."""
    if fleet.model.partition is not None:
        return programs.partition(fleet.model.partition)

    def choose() -> Steps:
        units = len(programs.units)
        planned = {
            end: [programs.program(work, partition) for work in works]
            for end, (works, partition) in works_by_end(units).items()
        }
        groups = [
            Group.of(
                [client.limit_bytes],
                {end: [promises[client.name](program) for program in row] for end, row in planned.items()},
            )
            for client in fleet.clients
        ]
        return choose_steps(groups, units, coverage=fleet.method.coverage)

    steps = kept_steps(output, choose)
    note(steps_table(steps, programs.units))
    return steps.partition


def _held(
    fleet: Fleet,
    partition: Partition,
    programs: RunPrograms,
    promises: Mapping[str, Callable[[Program], int]],
) -> list[Growing]:
    """What some client does in some step: the first of its suffixes that it holds."""
    held: dict[Growing, None] = {}
    for block in partition.blocks:
        choices = [(work, programs.program(work, partition)) for work in suffixes(partition, block.index)]
        for client in fleet.clients:
            promise = promises[client.name]
            first = next((work for work, program in choices if promise(program) <= client.limit_bytes), None)
            if first is not None:
                held[first] = None
    return list(held)
