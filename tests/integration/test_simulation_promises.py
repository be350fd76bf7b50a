"""Promises of the simulation: with the fleet's margin, with FedProx's weights, and for as many channels as it says."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine computes with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from device_profiles.manifest import Optimizer
from device_profiles.work import Grow, Whole, grow, label, suffixes
from edge_runtime.export.plan.programs import build_programs
from edge_runtime.export.plan.runs import TrainingChoices
from server.engines.simulation.promises import counted_bytes, promises_of
from server.engines.simulation.segments import ModelPieces
from server.engines.simulation.setup import prepare_simulation
from server.engines.simulation.trainables import TrainableSet, narrower_width
from server.fleet.fleet import DataSettings, Fleet, TrainingSettings
from server.fleet.model import ModelSettings
from server.fleet.population import ClientSettings
from server.fleet.virtual import PromiseSettings
from server.methods import create_method
from server.planner.menus import step_alone
from server.planner.run_programs import RunPrograms

MB = 1 << 20
PARTITION = ModelPieces(ModelSettings(name="cnn", width=4, batch=16)).partition
GROWN = [grow(PARTITION, block) for block in (1, 2, 3)]


def _fleet(**settings: object) -> Fleet:
    fleet = Fleet(
        model=ModelSettings(name="cnn", width=4, batch=16),
        data=DataSettings(sources=("digits",), test_examples=32),
        named=(ClientSettings(name="small", limit_mb=1.04), ClientSettings(name="large", limit_mb=1.06)),
    )
    return msgspec.structs.replace(fleet, **settings)


@pytest.mark.parametrize(("margin", "holders"), [(0.05, {"large"}), (0.0, {"small", "large"})])
def test_a_client_of_the_simulation_works_where_the_promise_with_the_margin_fits(
    margin: float, holders: set[str], tmp_path: Path
) -> None:
    table = {label(work, PARTITION): MB for work in GROWN}
    (tmp_path / "table.json").write_text(json.dumps(table))
    promises = PromiseSettings(source="file", file=str(tmp_path / "table.json"))
    fleet = _fleet(promises=promises, margin=margin)
    prepared = prepare_simulation(fleet, tmp_path / "run", lambda line: None, create_method(fleet.method))
    clients = prepared.engine.clients()
    assert {client.name for client in clients if client.holds(GROWN[0])} == holders
    assert {client.needs[GROWN[0].name] for client in clients} == {int(MB * (1 + margin))}
    # Kept without it: as the `promises.file` of another run it would count twice.
    assert json.loads((tmp_path / "run" / "promises.json").read_text())["promises"] == table


def test_counting_a_step_keeps_none_of_its_tensors() -> None:
    def alive() -> int:
        return sum(isinstance(found, torch.Tensor) for found in gc.get_objects())

    trainables = TrainableSet(ModelSettings(name="cnn", width=4, batch=16))
    work = trainables.of(GROWN[0])
    counted_bytes(work, trainables.pieces)
    before = alive()
    for _ in range(3):
        counted_bytes(work, trainables.pieces)
    assert alive() == before


def test_a_promise_of_the_runtime_counts_the_weights_that_fedprox_keeps() -> None:
    fleet = _fleet(training=TrainingSettings(proximal=0.1))
    with_term = promises_of(fleet, GROWN, PARTITION, source="runtime")
    without = promises_of(_fleet(), GROWN, PARTITION, source="runtime")
    pieces = ModelPieces(fleet.model)
    training = fleet.training
    optimizer = Optimizer(name="sgd", momentum=training.momentum, weight_decay=training.weight_decay, proximal=True)
    exported = {
        program.work: program.memory.total_bytes(training.threads)
        for program, _, _ in build_programs(
            pieces.source, pieces.partition, blocks=(1, 2, 3), choices=TrainingChoices(optimizer=optimizer)
        )
        if isinstance(program.work, Grow) and program.variant == "default"
    }
    base = int(9.1 * MB)
    assert with_term == {name: size + base for name, size in exported.items()}
    assert all(with_term[name] > without[name] for name in without)


def test_a_promise_with_recomputation_is_that_of_the_planned_program_where_it_takes_less() -> None:
    model = ModelSettings(name="resnet18", width=8, batch=32)
    programs = RunPrograms(model, TrainingSettings())
    whole = step_alone(len(programs.units) - 1, len(programs.units))
    works = [*suffixes(whole, 1), Whole()]
    kept = promises_of(_fleet(model=model), works, whole)
    recomputed = promises_of(_fleet(model=model, promises=PromiseSettings(recompute=True)), works, whole)
    base = int(9.1 * MB)
    for work in suffixes(whole, 1):
        lighter = programs.cost(work, whole, "recompute")
        assert recomputed[work] == min(kept[work], kept[work] if lighter is None else lighter.total_bytes(1) + base)
    # The longest run keeps most, the output module alone nothing that could be made again.
    assert recomputed[works[0]] < 0.8 * kept[works[0]] and recomputed[works[-2]] == kept[works[-2]]
    assert recomputed[Whole()] == recomputed[works[0]]


def test_a_promise_counted_for_pytorch_holds_the_weights_that_fedprox_keeps() -> None:
    fleet = _fleet(training=TrainingSettings(proximal=0.1))
    with_term = promises_of(fleet, GROWN, PARTITION, source="pytorch")
    without = promises_of(_fleet(), GROWN, PARTITION, source="pytorch")
    works = TrainableSet(fleet.model)
    for work in GROWN:
        trained = works.of(work).trained.values()
        parameters = sum(int(np.prod(tensor.shape)) for tensor in trained if tensor.role == "parameter")
        assert with_term[work] - without[work] == 4 * parameters > 0


@pytest.mark.parametrize("full", [8, 20, 64])
def test_a_narrower_network_never_has_more_channels_than_its_part(full: int) -> None:
    for part in range(1, 17):
        width = narrower_width(ModelSettings(name="cnn", width=full), part / 16)
        assert width == max(1, full * part // 16), part
