"""Method `planned` with real devices: a few programs are measured under each client's limit, the steps are chosen from
what all the others are predicted to need, and the programs that this takes are exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from device_profiles.model import Partition
from device_profiles.profile import DeviceProfile
from device_profiles.trades import trades_of
from device_profiles.work import Growing, Head, Joint, grow
from edge_runtime.device.prepare.bundle import Bundle
from server.engines.bundled.bundles import planned_bundle as bundle_of_plan
from server.engines.bundled.bundles import run_bundle
from server.fleet.fleet import Fleet
from server.planner.fleet_plan import plan_fleet
from server.planner.profiled import profiled_fleet
from server.planner.run_programs import RunPrograms, table_of
from server.planner.steps import keep_steps, kept_steps
from server.planner.tables import steps_table

Note = Callable[[str], None]


def run_programs(fleet: Fleet, output: Path) -> RunPrograms:
    """What the fleet's model can be asked for, in the variants that its method allows; what the run below `output` has
    planned before is read again."""
    programs = RunPrograms(fleet.model, fleet.training, trades=trades_of(fleet.method.variants))
    programs.read_table(table_of(output))
    return programs


def calibration_bundle(fleet: Fleet, output: Path, programs: RunPrograms) -> Bundle:
    """Programs of all sizes, to measure: the head alone, the last unit, the later half of the units, all of them."""
    units = len(programs.units)
    whole = Partition.ending_with([units - 1])
    firsts = sorted({units - 1, units // 2, 0}, reverse=True)
    works: list[Growing] = [
        Head(last_unit=units - 1),
        *(Joint(first_unit=first, last_unit=units - 1) for first in firsts),
    ]
    trained = tuple(work for work in works if programs.trains(work, whole))
    return run_bundle(fleet, output / "calibration", partition=whole, works=trained)


def planned_bundle(
    fleet: Fleet,
    output: Path,
    note: Note,
    programs: RunPrograms,
    profiles: Mapping[str, DeviceProfile],
    examples: Mapping[str, int],
    *,
    others_may_come: bool = False,
) -> Bundle:
    """The programs that the plan takes. `profiles` are of the calibration's programs, `examples` those that each client
    has. Where `others_may_come`, also each step's own units and its output module, which nobody may hold or need now.

    Raises ExecutionError where no client holds anything.
    """
    there = profiled_fleet(programs, profiles, margin=fleet.margin, examples=examples)
    asked = None if fleet.model.cut is None else programs.partition(fleet.model.cut)
    kept = kept_steps(output)
    planned = plan_fleet(
        there.kinds,
        there.clients,
        len(programs.units),
        coverage=fleet.method.coverage,
        given=asked if kept is None else kept.partition,
        exact=there.exact,
    )
    programs.write_table(table_of(output))
    steps = keep_steps(output, planned.steps) if kept is None else kept
    note(steps_table(steps, programs.units))
    taken = list(planned.programs)
    if others_may_come:
        partition = steps.partition
        own = [work for b in partition.blocks for work in (grow(partition, b.index), Head(last_unit=b.last_unit))]
        taken += [(work, "default") for work in own if programs.trains(work, partition)]
    return bundle_of_plan(fleet, output / "bundle", programs, steps.partition, list(dict.fromkeys(taken)))
