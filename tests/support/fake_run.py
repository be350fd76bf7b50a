"""A run of the golden `cnn` with an engine that computes instead of training; files and schedule are the real ones."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.task import Result, Task
from device_profiles.update import UpdateMetadata
from device_profiles.work import Work, block_of, blocks_of, label
from server.averaging.aggregation import ReceivedUpdate
from server.fleet.client import Client
from server.fleet.fleet import (
    DataSettings,
    Fleet,
    FreezingSettings,
    MethodSettings,
    ModelSettings,
    TrainingSettings,
)
from server.fleet.population import ClientSettings
from server.fleet.privacy import PrivacySettings
from server.fleet.structure import Structure
from server.methods import create_method
from server.rounds.observer import Observer
from server.rounds.run_state import RunFolder, RunState, Weights
from server.rounds.schedule import Schedule
from server.rounds.seam import Event, Failed, Updated

MANIFEST = read_json(Path(__file__).resolve().parents[1] / "golden" / "manifest.json", Manifest)
CLIENTS = ("a", "b", "c")
EXAMPLES = {name: 10 + ord(name) for name in CLIENTS}

Answer = ReceivedUpdate | Result


@dataclasses.dataclass
class FakeEngine:
    """Every update follows from the weights, the client and the seed. `fate` may change what a task gives."""

    tick: Callable[[], None] = lambda: None
    fate: Callable[[int, Task, ReceivedUpdate], Answer] = lambda call, task, update: update
    calls: list[list[Task]] = dataclasses.field(default_factory=list)
    there: Sequence[Client] = ()
    out: list[Task] = dataclasses.field(default_factory=list)

    def clients(self) -> Sequence[Client]:
        return self.there

    def submit(self, tasks: Sequence[Task]) -> None:
        self.calls.append(list(tasks))
        self.out = list(tasks)

    def withdraw(self) -> None:
        self.out = []

    def events(self, deadline: float | None) -> Generator[Event]:
        while self.out:
            yield from self.answers(self.out.pop(0))

    def answers(self, task: Task) -> Iterable[Event]:
        """What the client of a task says; as a rule once."""
        self.tick()
        answer = self.fate(len(self.calls), task, _update(task))
        if isinstance(answer, Result):
            return [Failed(task=task.key, result=answer)]
        examples = answer.metadata.examples
        result = Result(client=task.client, status="ok", seconds=0.0, examples=examples, loss_last=1.0)
        return [Updated(task=task.key, result=result, update=answer)]


@dataclasses.dataclass
class FakeEvaluator:
    """Accuracies follow from the weights."""

    tick: Callable[[], None] = lambda: None

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float, float]:
        self.tick()
        return zlib.crc32(weights.read_bytes()) / 2**32, float((blocks_of(work, MANIFEST.partition) or (0, 0))[1])


def _update(task: Task) -> ReceivedUpdate:
    weights = load_file(task.weights)
    generator = np.random.default_rng([task.seed, ord(task.client)])
    program = MANIFEST.program(label(task.work, MANIFEST.partition))
    tensors = {
        t.name: weights[t.name] + generator.standard_normal(t.shape, np.float32)
        for t in program.tensors
        if t.role != "optimizer_state"
    }
    # Variances of one round differ by little.
    tensors |= {name: 1 + np.abs(tensor) / 10 for name, tensor in tensors.items() if name.endswith("running_var")}
    metadata = UpdateMetadata(
        block=block_of(task.work, MANIFEST.partition),
        program=program.name,
        examples=EXAMPLES[task.client],
        steps=task.steps or 1,
        base_version=task.base_version,
        loss_first=2.0,
        loss_last=1.0,
    )
    return ReceivedUpdate(client=task.client, metadata=metadata, tensors=tensors)


def initial_weights() -> Weights:
    tensors = {
        (t.name, t.shape, "float32") for p in MANIFEST.programs for t in p.tensors if t.role != "optimizer_state"
    }
    tensors |= {(t.name, t.shape, t.dtype) for t in MANIFEST.model.tensors}
    return {name: np.zeros(shape, dtype) for name, shape, dtype in sorted(tensors)}


def fleet_of(
    *,
    min_clients: int = 2,
    rounds: int = 2,
    training: TrainingSettings | None = None,
    method: MethodSettings | None = None,
    freezing: FreezingSettings | None = None,
    privacy: PrivacySettings | None = None,
) -> Fleet:
    """The fleet of such a run."""
    return Fleet(
        model=ModelSettings(name="cnn"),
        data=DataSettings(sources=("digits",)),
        named=tuple(ClientSettings(name=name, limit_mb=64) for name in CLIENTS),
        training=training or TrainingSettings(min_clients=min_clients, attempts=3),
        freezing=freezing or FreezingSettings(max_rounds=rounds),
        method=method or MethodSettings(),
        privacy=privacy,
    )


def clients_of(budgets: Mapping[str, int]) -> list[Client]:
    """Clients that need 1 MB for whatever they are asked for."""
    needs = {program.work.name: 1 << 20 for program in MANIFEST.programs}
    return [
        Client(name=name, budget_bytes=budget, needs=needs, examples=EXAMPLES[name]) for name, budget in budgets.items()
    ]


def run(
    folder: Path,
    engine: FakeEngine,
    *,
    holders: Sequence[str] = CLIENTS,
    min_clients: int = 2,
    rounds: int = 2,
    training: TrainingSettings | None = None,
    method: MethodSettings | None = None,
    freezing: FreezingSettings | None = None,
    privacy: PrivacySettings | None = None,
    observer: Observer | None = None,
    absent_seconds: float = 0.0,
) -> tuple[RunState, Weights]:
    """Start or resume a run in `folder` until it is finished; `holders` hold every block."""
    fleet = fleet_of(
        min_clients=min_clients, rounds=rounds, training=training, method=method, freezing=freezing, privacy=privacy
    )
    clients = clients_of({name: 2 << 20 if name in holders else 1 << 19 for name in CLIENTS})
    engine.there = engine.there or clients
    run_folder = RunFolder(folder)
    schedule = Schedule(
        fleet=fleet,
        stages=create_method(fleet.method).stages(fleet, MANIFEST.partition, clients),
        structure=Structure.of(MANIFEST),
        engine=engine,
        evaluator=FakeEvaluator(engine.tick),
        folder=run_folder,
        observer=observer or Observer(),
        absent_seconds=absent_seconds,
    )
    return schedule.run(*run_folder.load_or_start("settings", initial_weights))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The rounds of the run in `folder`, failed ones too, as `rounds.jsonl` has them."""
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_bytes().splitlines()]


def dead(task: Task) -> Result:
    """What is heard of a client that was killed."""
    return Result(client=task.client, status="killed at its memory limit", seconds=0.1, oom_kills=1)


def broken(update: ReceivedUpdate) -> ReceivedUpdate:
    """The update with values that are no numbers."""
    tensors = {name: np.full_like(tensor, np.nan) for name, tensor in update.tensors.items()}
    return dataclasses.replace(update, tensors=tensors)
