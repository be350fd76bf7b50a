"""Set up the `simulation` engine: pieces of the model, promises, and the clients' examples on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from device_profiles.files import write_json
from device_profiles.promise import with_margin
from device_profiles.work import Work, label
from server.data.split import check_source, choose_source, read_examples, write_parts
from server.engines.prepared import PreparedRun
from server.engines.simulation.compute_device import choose_device
from server.engines.simulation.engine import SimulationEngine
from server.engines.simulation.evaluator import SimulationEvaluator
from server.engines.simulation.examples import Examples, read_part
from server.engines.simulation.networks import initial_classifiers
from server.engines.simulation.promises import needs_of_runs, promises_of
from server.engines.simulation.trainables import TrainableSet
from server.fleet.client import Client, alike
from server.fleet.fleet import Fleet
from server.fleet.structure import Structure
from server.fleet.words import in_words_of
from server.methods.labels import check_labels
from server.methods.method import Method, Stage
from server.methods.planned import Planned
from server.planner.assignment import BestHeld
from server.planner.holding import Group
from server.planner.pace import pace_of
from server.planner.steps import Steps, choose_steps, keep_steps, kept_steps
from server.planner.tables import steps_table
from server.rounds.run_state import Weights

Note = Callable[[str], None]


def prepare_simulation(fleet: Fleet, output: Path, note: Note, method: Method) -> PreparedRun:
    """Everything for virtual clients; promises are kept as `promises.json` below `output`."""
    with in_words_of(fleet.origin, fleet.model.name):
        return _prepare(fleet, output, note, method)


def _prepare(fleet: Fleet, output: Path, note: Note, method: Method) -> PreparedRun:
    device = choose_device(fleet.simulation.device)
    source, missing = choose_source(fleet.data, fleet.model.targets)
    for line in missing:
        note(f"data: {line}")
    note(f"data: {source}, split {fleet.data.split}; computing on {device}")
    trainables = TrainableSet(fleet.model)
    augment = fleet.training.augment != "none"
    check_labels(fleet, method, trainables.pieces.source.positions)
    targets = fleet.model.targets
    check_source(source, trainables.pieces.source.model, targets=targets, augment=augment)
    if isinstance(method, Planned) and fleet.model.cut is None:
        units = len(trainables.pieces.source.cut.units)
        limits = [client.limit_bytes for client in fleet.clients]
        steps = kept_steps(output) or keep_steps(output, _choose_steps(fleet, units, limits))
        note(steps_table(steps, [unit.name for unit in trainables.pieces.source.cut.units]))
        trainables = trainables.cut_into(steps.partition)
    partition = trainables.pieces.partition
    works = method.works(partition)
    own = fleet.model.cut is not None or not isinstance(method, Planned)
    table = promises_of(fleet, works, partition, by_label=own)
    # Without the margin, so that the file can be the `promises.file` of another run.
    labelled = {label(work, partition): table[work] for work in works}
    document = {"source": fleet.promises.source, "margin": fleet.margin, "promises": labelled}
    write_json(output / "promises.json", document)
    needs = {work.name: with_margin(promise, fleet.margin) for work, promise in table.items()}
    there = alike({client.name: client.limit_bytes for client in fleet.clients}, needs)
    stages = method.stages(fleet, partition, there)
    given = _given(stages, there)
    used = dict.fromkeys([*given, *(stage.evaluated for stage in stages)])
    parts = write_parts(source, output / "data", [client.name for client in there], fleet.data, targets)
    clients = {name: read_part(path, device) for name, path in parts.items()}
    there = [replace(client, examples=len(clients[client.name])) for client in there]
    engine = SimulationEngine(
        fleet,
        trainables,
        clients=clients,
        there=there,
        device=device,
    )
    test = _test_examples(source, device, targets)

    def initial() -> Weights:
        weights = trainables.pieces.initial_weights()
        weights |= initial_classifiers([trainables.of(work) for work in used], fleet.model.seed)
        return {name: tensor.numpy() for name, tensor in weights.items()}

    return PreparedRun(
        engine=engine,
        evaluator=SimulationEvaluator(fleet, trainables, test=test, clients=clients, device=device),
        structure=Structure(
            model=tuple(spec.name for spec in trainables.pieces.source.model.tensors),
            partition=partition,
            blocks=tuple(trainables.pieces.block_names(block.index) for block in partition.blocks),
            trained={work: trainables.of(work).trained for work in given},
        ),
        partition=partition,
        model=trainables.pieces.source.model,
        initial_weights=initial,
        data=source,
    )


def _choose_steps(fleet: Fleet, units: int, limits: Sequence[int]) -> Steps:
    needs = needs_of_runs(fleet, units)
    with_margins = {end: [with_margin(promise, fleet.margin) for promise in row] for end, row in needs.items()}
    return choose_steps([Group.of(limits, with_margins)], units, coverage=fleet.method.coverage, pace=pace_of(fleet))


def _given(stages: Sequence[Stage], clients: Sequence[Client]) -> list[Work]:
    """What some client really does: the rest of the widths need not be captured."""
    planner = BestHeld()
    return list(dict.fromkeys(work for stage in stages for work in planner.assign(stage, clients).values()))


def _test_examples(source: str, device: torch.device, targets: int) -> Examples:
    inputs, labels = read_examples(source, "test", targets)
    return Examples(torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device))
