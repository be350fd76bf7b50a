"""Bundles of a run on this machine, exported once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from device_profiles.model import Partition
from device_profiles.trades import Trade
from device_profiles.work import Growing
from edge_runtime.device.prepare.bundle import Bundle, open_bundle
from server.fleet.fleet import Fleet
from server.fleet.local_optimizer import local_optimizer
from server.fleet.preparation import preparation_of, trained_work

if TYPE_CHECKING:  # an export brings torch, which a bundle that is there does not need
    from edge_runtime.export.plan.traded import Traded
    from server.planner.run_programs import RunPrograms


def run_bundle(
    fleet: Fleet,
    path: Path,
    *,
    partition: Partition | None = None,
    works: tuple[Growing, ...] | None = None,
    traded: tuple[Traded, ...] = (),
) -> Bundle:
    """The bundle at `path`, which is exported if it is not there: of the fleet file's model and partition, unless
    another one is given, with the training steps of `works`, by default those of the fleet's method, and those `traded`
    for memory beside them."""
    if not (path / "manifest.json").is_file():
        from edge_runtime.export.targets.native import export_bundle

        trained = trained_work(fleet.model) if partition is None else None
        export_bundle(
            fleet.model.name,
            path,
            width=fleet.model.width,
            partition=fleet.model.cut if partition is None else _as_text(partition),
            batch=fleet.model.batch,
            joint=fleet.method.name == "elastic" and partition is None,
            works=works if works is not None or trained is None else (trained,),
            traded=traded,
            optimizer=local_optimizer(fleet.training),
            loss=fleet.model.minimised,
            input_shape=fleet.model.input_shape,
            input_dtype=fleet.model.input_dtype,
            head=fleet.model.head,
            classes=fleet.model.classes,
            seed=fleet.model.seed,
            preparation=preparation_of(fleet.model),
        )
    return open_bundle(path)


def planned_bundle(
    fleet: Fleet, path: Path, programs: RunPrograms, partition: Partition, taken: Sequence[tuple[Growing, Trade]]
) -> Bundle:
    """The bundle of a plan: every piece of work in the trades in which somebody does it."""
    return run_bundle(
        fleet,
        path,
        partition=partition,
        works=tuple(work for work, trade in taken if trade == "default"),
        traded=tuple(programs.traded(work, partition, trade) for work, trade in taken if trade != "default"),
    )


def _as_text(partition: Partition) -> str:
    return ",".join(f"{block.first_unit}-{block.last_unit}" for block in partition.blocks)
