"""The growing schedule: train block 1..T, freeze each by effective movement, carry the output module along."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from device_profiles.bundle import Manifest, Program
from device_profiles.contract import program_name
from device_profiles.errors import ExecutionError
from device_profiles.files import atomic_file
from device_profiles.plan import Plan
from server.aggregation import average, reason_to_reject
from server.engines.engine import Engine, Result, Task
from server.fleet import Fleet
from server.freezing import EffectiveMovementFreezing, Scalars, sample_scalars
from server.run_state import RoundRecord, RunFolder, RunState, StepRecord, Weights


class Observer:
    """Hears how the run goes; the default keeps silent."""

    def step_started(self, block: int, blocks: int, clients: int) -> None:
        """Block `block` of `blocks` starts with `clients` clients."""

    def client_done(self, result: Result, done: int, clients: int) -> None:
        """One client of the round has answered."""

    def round_done(self, record: RoundRecord) -> None:
        """A round is finished and saved."""


class GrowingSchedule:
    """Runs the rounds of a run from its saved state to its end."""

    def __init__(
        self, *, fleet: Fleet, manifest: Manifest, plan: Plan, engine: Engine, folder: RunFolder, observer: Observer
    ) -> None:
        self._fleet = fleet
        self._manifest = manifest
        self._plan = plan
        self._engine = engine
        self._folder = folder
        self._observer = observer

    def run(self, state: RunState, weights: Weights) -> tuple[RunState, Weights]:
        """Train until every block is frozen; the state is saved after every round."""
        while not state.finished:
            state, weights = self._grow(state, weights)
        return state, weights

    def _grow(self, state: RunState, weights: Weights) -> tuple[RunState, Weights]:
        program = self._manifest.program(program_name("grow", state.block))
        clients = [c.client for c in self._plan.steps[state.block - 1].clients if c.fits]
        blocks = len(self._manifest.partition.blocks)
        self._observer.step_started(state.block, blocks, len(clients))
        if len(clients) < self._fleet.training.min_clients:
            raise ExecutionError(
                f"block {state.block}: {len(clients)} clients hold its promise, min_clients is "
                f"{self._fleet.training.min_clients}; use a finer partition or a smaller batch"
            )
        freezing = EffectiveMovementFreezing(self._fleet.freezing, self._history(state, weights))
        while True:
            state, weights, ended = self._round(state, weights, program, clients, freezing)
            if ended:
                return state, weights

    def _round(
        self,
        state: RunState,
        weights: Weights,
        program: Program,
        clients: list[str],
        freezing: EffectiveMovementFreezing,
    ) -> tuple[RunState, Weights, bool]:
        started = time.monotonic()
        results, averaged, rejected, repeated = self._collect(state, program, clients)
        weights = {**weights, **averaged}
        scalars = self._scalars(program, weights)
        reason = freezing.observe(scalars)
        number = state.round + 1
        # The new weights are evaluated from a file of their own: the state still names the old ones.
        candidate = self._folder.folder / "candidate.safetensors"
        with atomic_file(candidate) as temporary:
            save_file(weights, temporary)
        accuracy, _ = self._engine.evaluate(state.block, candidate)
        candidate.unlink()
        record = RoundRecord(
            round=number,
            stage="grow",
            block=state.block,
            round_of_step=state.round_of_step + 1,
            participation=len(clients) / len(self._fleet.clients),
            clients=tuple(results),
            rejected=rejected,
            loss=_mean_loss([result for result in results if result.client not in rejected]),
            accuracy=accuracy,
            effective_movement=freezing.movements[-1] if freezing.movements else None,
            slope=freezing.slope,
            bytes_down=sum(result.bytes_down for result in (*results, *repeated)),
            bytes_up=sum(result.bytes_up for result in (*results, *repeated)),
            seconds=time.monotonic() - started,
            froze_because=reason,
            repeated=tuple(repeated),
        )
        self._append_history(state, scalars)
        following = self._following(state, record, reason)
        saved = self._folder.save(following, weights, record)
        self._observer.round_done(record)
        return saved, weights, reason is not None

    def _collect(
        self, state: RunState, program: Program, clients: list[str]
    ) -> tuple[list[Result], dict[str, NDArray[np.float32]], dict[str, str], list[Result]]:
        """One round's results, average, rejected updates, and the results of attempts in which too few delivered."""
        training = self._fleet.training
        version = f"{state.round}-{state.weights_sha256[:16]}"
        repeated: list[Result] = []
        for attempt in range(training.attempts):
            done = 0

            def count(result: Result) -> None:
                nonlocal done
                done += 1
                self._observer.client_done(result, done, len(clients))

            tasks = [
                Task(
                    client=client,
                    block=state.block,
                    weights=self._folder.weights_path(state.round),
                    base_version=version,
                    steps=training.steps,
                    learning_rate=training.learning_rate,
                    # Another order every round and attempt, the same for the same run.
                    seed=state.round * training.attempts + attempt,
                )
                for client in clients
            ]
            results, updates = self._engine.train(tasks, count)
            reasons = {u.client: reason_to_reject(u, program, version) for u in updates}
            accepted = [update for update in updates if reasons[update.client] is None]
            rejected = {client: reason for client, reason in reasons.items() if reason is not None}
            if len(accepted) >= training.min_clients:
                return results, average(accepted), rejected, repeated
            repeated += results
        said = "; ".join(f"{r.client}: {rejected.get(r.client, r.status)}" for r in results)
        raise ExecutionError(
            f"block {state.block}, round {state.round_of_step + 1}: fewer than {training.min_clients} clients "
            f"delivered in {training.attempts} attempts ({said}); the run is saved, continue with --resume"
        )

    def _following(self, state: RunState, record: RoundRecord, reason: str | None) -> RunState:
        if reason is None:
            return msgspec.structs.replace(state, round=record.round, round_of_step=record.round_of_step)
        step = StepRecord(
            stage="grow",
            block=state.block,
            rounds=record.round_of_step,
            froze_because=reason,
            accuracy=record.accuracy,
        )
        last = state.block == len(self._manifest.partition.blocks)
        return msgspec.structs.replace(
            state,
            round=record.round,
            block=state.block if last else state.block + 1,
            round_of_step=0,
            steps=(*state.steps, step),
            finished=last,
        )

    def _scalars(self, program: Program, weights: Weights) -> Scalars:
        """Sampled parameters of the active block itself, without the output module behind it."""
        block = self._manifest.partition.blocks[program.block - 1]
        units = self._manifest.model.units[block.first_unit : block.last_unit + 1]
        own = {name for unit in units for name in unit.tensors}
        names = [t.name for t in program.tensors if t.role == "parameter" and t.name in own]
        settings = self._fleet.freezing
        return sample_scalars({name: weights[name] for name in names}, settings.scalars, settings.seed)

    def _history_path(self, block: int) -> Path:
        return self._folder.folder / "movement" / f"block{block}.safetensors"

    def _history(self, state: RunState, weights: Weights) -> list[Scalars]:
        """Scalars before the step and after each of its rounds so far; starts the file at the step's first round."""
        program = self._manifest.program(program_name("grow", state.block))
        path = self._history_path(state.block)
        if state.round_of_step == 0:
            scalars = self._scalars(program, weights)
            with atomic_file(path) as temporary:
                save_file({"000000": scalars}, temporary)
            return [scalars]
        saved: dict[str, Any] = load_file(path)
        return [saved[f"{k:06d}"] for k in range(state.round_of_step + 1)]

    def _append_history(self, state: RunState, scalars: Scalars) -> None:
        path = self._history_path(state.block)
        saved = load_file(path)
        # A line that a killed run wrote ahead of its state is written over here.
        saved[f"{state.round_of_step + 1:06d}"] = scalars
        with atomic_file(path) as temporary:
            save_file(saved, temporary)


def _mean_loss(results: list[Result]) -> float | None:
    """Last losses weighted by examples, over the clients that delivered."""
    known = [(r.loss_last, r.examples) for r in results if r.loss_last is not None and r.examples]
    examples = sum(count for _, count in known)
    return sum(loss * count for loss, count in known) / examples if examples else None
