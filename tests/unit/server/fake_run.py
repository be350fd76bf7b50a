"""A run of the golden `cnn` with an engine that computes instead of training; files and schedule are the real ones."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from device_profiles.bundle import Manifest
from device_profiles.files import read_json
from device_profiles.plan import ClientPlan, Plan, StepPlan
from device_profiles.update import UpdateMetadata
from server.aggregation import ReceivedUpdate
from server.engines.engine import Result, Task
from server.fleet import ClientSettings, DataSettings, Fleet, FreezingSettings, ModelSettings, TrainingSettings
from server.run_state import RunFolder, RunState, Weights
from server.schedule import GrowingSchedule, Observer

MANIFEST = read_json(Path(__file__).resolve().parents[2] / "golden" / "manifest.json", Manifest)
CLIENTS = ("a", "b", "c")


@dataclasses.dataclass
class FakeEngine:
    """Every update follows from the weights, the client and the seed. `fate` may change what a task gives."""

    tick: Callable[[], None] = lambda: None
    fate: Callable[[int, Task, ReceivedUpdate], ReceivedUpdate | Result] = lambda call, task, update: update
    calls: list[list[Task]] = dataclasses.field(default_factory=list)

    def train(self, tasks: Sequence[Task], done: Callable[[Result], None]) -> tuple[list[Result], list[ReceivedUpdate]]:
        self.calls.append(list(tasks))
        results, updates = [], []
        for task in tasks:
            self.tick()
            answer = self.fate(len(self.calls), task, _update(task))
            if isinstance(answer, Result):
                result = answer
            else:
                updates.append(answer)
                result = Result(
                    client=task.client, status="ok", seconds=0.0, examples=answer.metadata.examples, loss_last=1.0
                )
            results.append(result)
            done(result)
        return results, updates

    def evaluate(self, block: int, weights: Path, *, full: bool = False) -> tuple[float, float]:
        self.tick()
        return zlib.crc32(weights.read_bytes()) / 2**32, float(block)


def _update(task: Task) -> ReceivedUpdate:
    weights = load_file(task.weights)
    generator = np.random.default_rng([task.seed, ord(task.client)])
    program = MANIFEST.program(f"grow-block{task.block}")
    tensors = {
        t.name: weights[t.name] + generator.standard_normal(t.shape, np.float32)
        for t in program.tensors
        if t.role != "optimizer_state"
    }
    metadata = UpdateMetadata(
        block=task.block,
        program=program.name,
        examples=10 + ord(task.client),
        steps=task.steps,
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


def run(
    folder: Path, engine: FakeEngine, *, holders: Sequence[str] = CLIENTS, min_clients: int = 2, rounds: int = 2
) -> tuple[RunState, Weights]:
    """Start or resume a run in `folder` until it is finished; `holders` hold every block."""
    fleet = Fleet(
        model=ModelSettings(name="cnn"),
        data=DataSettings(sources=("digits",)),
        clients=tuple(ClientSettings(name=name, limit_mb=64) for name in CLIENTS),
        training=TrainingSettings(min_clients=min_clients, attempts=3),
        freezing=FreezingSettings(max_rounds=rounds),
    )
    steps = tuple(
        StepPlan(
            block=block.index,
            participation=len(holders) / len(CLIENTS),
            clients=tuple(
                ClientPlan(
                    client=name,
                    block=block.index,
                    program=f"grow-block{block.index}" if name in holders else None,
                    predicted_peak_bytes=1 << 20,
                    budget_bytes=64 << 20,
                    fits=name in holders,
                )
                for name in CLIENTS
            ),
        )
        for block in MANIFEST.partition.blocks
    )
    plan = Plan(
        bundle_sha256="0" * 64,
        margin=0.05,
        partition=MANIFEST.partition,
        participation=1.0,
        clients=steps[0].clients,
        steps=steps,
    )
    run_folder = RunFolder(folder)
    schedule = GrowingSchedule(
        fleet=fleet, manifest=MANIFEST, plan=plan, engine=engine, folder=run_folder, observer=Observer()
    )
    return schedule.run(*run_folder.load_or_start("settings", initial_weights))
