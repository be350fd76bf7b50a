"""Method `planned` with real devices: a few programs are measured under each client's limit, the steps are chosen from
what all the others are predicted to need, and the programs that this takes are exported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from device_profiles.contract import COSTS_NAME
from device_profiles.errors import ExecutionError
from device_profiles.model import Partition
from device_profiles.profile import DeviceProfile
from device_profiles.trades import Trade, trade_named, trades_of
from device_profiles.work import Growing, Head, Joint, ProgramWork, grow, label
from edge_runtime.device.prepare.bundle import Bundle
from server.engines.bundled.bundles import planned_bundle as bundle_of_plan
from server.engines.bundled.bundles import run_bundle
from server.fleet.fleet import Fleet
from server.planner.fleet_plan import groups_of, plan_fleet
from server.planner.pace import pace_of
from server.planner.profiled import profiled_fleet
from server.planner.steps import ChosenAgain, keep_chosen, keep_steps, kept_steps, plan_folder, steps_again
from server.planner.tables import steps_table
from server.rounds.run_state import RunState

if TYPE_CHECKING:  # it brings torch, which no other method needs once its bundle is there
    from server.planner.run_programs import RunPrograms

Note = Callable[[str], None]


def run_programs(fleet: Fleet, output: Path) -> RunPrograms:
    """What the fleet's model can be asked for, in the variants that its method allows; what the run below `output` has
    planned before is read again."""
    from server.planner.run_programs import RunPrograms

    programs = RunPrograms(fleet.model, fleet.training, trades=trades_of(fleet.method.variants))
    programs.read_table(_table_of(output))
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
    number: int = 0,
) -> Bundle:
    """The programs that plan `number` takes. `profiles` are of the calibration's programs, `examples` those that each
    client has. Where `others_may_come`, also each step's own units and its output module, which nobody may hold or need
    now.

    Raises ExecutionError where no client holds anything.
    """
    pace = pace_of(fleet)
    there = profiled_fleet(programs, profiles, margin=fleet.margin, examples=examples, pace=pace)
    asked = None if fleet.model.cut is None else programs.partition(fleet.model.cut)
    folder = plan_folder(output, number)
    kept = kept_steps(folder)
    planned = plan_fleet(
        there.kinds,
        there.clients,
        len(programs.units),
        coverage=fleet.method.coverage,
        given=asked if kept is None else kept.partition,
        exact=there.exact,
        pace=pace,
    )
    programs.write_table(_table_of(output))
    steps = keep_steps(folder, planned.steps) if kept is None else kept
    note(steps_table(steps, programs.units))
    taken = list(planned.programs)
    if others_may_come:
        taken += _for_others(programs, steps.partition)
    return bundle_of_plan(fleet, folder / "bundle", programs, steps.partition, list(dict.fromkeys(taken)))


def planned_again(
    fleet: Fleet,
    output: Path,
    note: Note,
    programs: RunPrograms,
    profiles: Mapping[str, DeviceProfile],
    examples: Mapping[str, int],
    *,
    bundle: Bundle,
    state: RunState,
) -> Bundle | None:
    """The bundle of another plan for the steps that the run has not begun in `state`, for the clients that are there;
    None where the steps and the programs of its `bundle` still do."""
    folder, kept = plan_folder(output, state.plan + 1), kept_steps(plan_folder(output, state.plan))
    if kept is None:
        return None
    rounds, given = fleet.training.rounds, fleet.model.partition is not None
    most = None if rounds is None else max(1, rounds - state.round)
    pace, done = pace_of(fleet, rounds=most), state.stage
    there = profiled_fleet(programs, profiles, margin=fleet.margin, examples=examples, pace=pace)
    try:
        steps = steps_again(groups_of(there.kinds, there.clients), kept, done, most=most, given=given, pace=pace)
    except ExecutionError:
        return None  # whoever comes back may hold what remains
    planned = plan_fleet(
        there.kinds,
        there.clients,
        len(programs.units),
        coverage=fleet.method.coverage,
        given=steps.partition,
        exact=there.exact,
        compared=False,
    )
    programs.write_table(_table_of(output))
    taken = [
        (work, one.trade(step))
        for one in planned.classes
        for step, work in enumerate(one.works)
        if work is not None and step >= done
    ]
    if steps.partition == kept.partition and _programs_of(bundle).issuperset(taken):
        return None
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed before it went on with this plan
    folder.mkdir(parents=True)
    ends = tuple(tuple(step.last_unit for step in one.steps) for one in (steps, kept))
    chosen = ChosenAgain(
        before_round=state.round + 1, done=done, clients=len(profiles), ends=ends[0], ends_before=ends[1]
    )
    note(f"{chosen.line}\n{steps_table(steps, programs.units)}")
    keep_chosen(folder, chosen)
    keep_steps(folder, steps)
    taken += _for_others(programs, steps.partition)
    return bundle_of_plan(fleet, folder / "bundle", programs, steps.partition, list(dict.fromkeys(taken)))


def _programs_of(bundle: Bundle) -> set[tuple[ProgramWork, Trade | None]]:
    """What a bundle trains, in which trades: their names say so, for momentum and micro-batches make no variant."""
    partition = bundle.manifest.partition
    return {
        (program.work, trade_named(program.name, label(program.work, partition)))
        for program in bundle.manifest.programs
    }


def _for_others(programs: RunPrograms, partition: Partition) -> list[tuple[Growing, Trade]]:
    """Of each step its own units, and its output module."""
    own = [work for b in partition.blocks for work in (grow(partition, b.index), Head(last_unit=b.last_unit))]
    return [(work, "default") for work in own if programs.trains(work, partition)]


def _table_of(output: Path) -> Path:
    """Where a run keeps what its programs cost."""
    return output / COSTS_NAME
