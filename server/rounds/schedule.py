"""Runs the rounds of a method's stages, one after the other, and saves the run after each round."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_profiles.errors import ExecutionError, FormatError
from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.tensor_files import save_tensors
from server.fleet.fleet import Fleet
from server.fleet.structure import Structure
from server.judging.judging import Asked, judge
from server.methods.method import Stage
from server.rounds.checks import check_stages
from server.rounds.freezing import EffectiveMovementFreezing, Scalars, sample_scalars
from server.rounds.learning_rate import learning_rate
from server.rounds.run_state import RoundRecord, RunFolder, RunState, StepRecord, Weights, read_tensors
from server.rounds.seam import Engine, Result, Task

_NAMED_FAILURES = 3
"""Clients that the message names when the run stops; all of them are in rounds.jsonl."""


class Observer:
    """Hears how the run goes; the default keeps silent."""

    def stage_started(self, stage: Stage, rounds: int) -> None:
        """A stage of at most `rounds` rounds starts or goes on."""

    def client_done(self, result: Result, done: int, clients: int) -> None:
        """One client of the round has answered."""

    def round_done(self, record: RoundRecord) -> None:
        """A round is finished and saved."""


@dataclass(kw_only=True, slots=True)
class _Attempts:
    """What came of the attempts at one round: the last one's answers, and what was lost in those before.

    Attributes:
        results: of the last attempt.
        accepted: its updates for the average.
        rejected: why others of it are not, by client.
        repeated: results of the attempts before, in order.
        rejected_before: what was rejected in each of those.
    """

    results: list[Result] = field(default_factory=list)
    accepted: list[ReceivedUpdate] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    repeated: list[Result] = field(default_factory=list)
    rejected_before: list[dict[str, str]] = field(default_factory=list)

    def set_aside(self) -> None:
        """Make room for another attempt; nothing of this one is forgotten."""
        if self.results:
            self.repeated += self.results
            self.rejected_before.append(self.rejected)

    def failed(self) -> list[str]:
        """Those of the last attempt that did not deliver, each with what became of it."""
        said = {result.client: result.status for result in self.results if result.status != "ok"} | self.rejected
        return [f"{client}: {reason}" for client, reason in said.items()]


class Schedule:
    """Runs the rounds of a run from its saved state to its end."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        stages: Sequence[Stage],
        structure: Structure,
        engine: Engine,
        folder: RunFolder,
        observer: Observer,
        examples: Mapping[str, int],
    ) -> None:
        """`examples`: how many each client has, as the fleet's data were cut; what updates say is held against it."""
        self._fleet = fleet
        self._examples = examples
        self._stages = stages
        self._structure = structure
        self._engine = engine
        self._folder = folder
        self._observer = observer
        self._have_frozen: set[tuple[str, str]] = set()
        """Clients that have the frozen tensors of a task's prefix."""

    def run(self, state: RunState, weights: Weights) -> tuple[RunState, Weights]:
        """Train until every stage has ended; the state is saved after every round.

        Raises ExecutionError before the first round where the round budget is smaller than the number of stages, or too
        few can take part in one of them; and when too few deliver.
        """
        check_stages(self._fleet, self._stages)
        if state.stage >= len(self._stages):
            raise FormatError(
                f"{self._folder.folder}: its state is in stage {state.stage}; there are {len(self._stages)}"
            )
        self._have_frozen = self._delivered_before()
        while not state.finished:
            state, weights = self._run_stage(self._stages[state.stage], state, weights)
        return state, weights

    def _run_stage(self, stage: Stage, state: RunState, weights: Weights) -> tuple[RunState, Weights]:
        rounds = self._rounds(stage, state)
        self._observer.stage_started(stage, rounds)
        settings = self._fleet.freezing if stage.freezing is None else stage.freezing
        movement = EffectiveMovementFreezing(settings, self._history(stage, state, weights))
        while True:
            state, weights, ended = self._round(stage, rounds, state, weights, movement)
            if ended:
                return state, weights

    def _rounds(self, stage: Stage, state: RunState) -> int:
        """Most rounds of the stage: its own, or what is left of the run's budget but one for each later stage."""
        budget = self._fleet.training.rounds
        if budget is None:
            return stage.rounds
        later = len(self._stages) - 1 - state.stage
        left = max(1, budget - (state.round - state.round_of_step) - later)
        return left if stage.takes_the_rest else min(stage.rounds, left)

    def _round(
        self, stage: Stage, rounds: int, state: RunState, weights: Weights, movement: EffectiveMovementFreezing
    ) -> tuple[RunState, Weights, bool]:
        started = time.monotonic()
        attempts = self._collect(stage, rounds, state, weights)
        if len(attempts.accepted) < self._fleet.training.min_clients:
            self._folder.save_failure(state, self._record(stage, state, attempts, started, failed=True))
            raise ExecutionError(self._too_few(stage, state, attempts))
        weights = {**weights, **average(attempts.accepted, weights, frozen_count=stage.frozen_count)}
        scalars = self._scalars(stage, weights)
        reason = self._reason_to_end(stage, rounds, state, movement.observe(scalars))
        accuracy = self._evaluate(stage, state, weights) if self._evaluates(state, reason) else None
        record = msgspec.structs.replace(
            self._record(stage, state, attempts, started),
            loss=_mean_loss([result for result in attempts.results if result.client not in attempts.rejected]),
            accuracy=accuracy,
            effective_movement=movement.movements[-1] if movement.movements else None,
            slope=movement.slope,
            froze_because=reason,
        )
        self._append_history(state, scalars)
        saved = self._folder.save(self._following(state, record), weights, record)
        self._observer.round_done(record)
        return saved, weights, reason is not None

    def _record(
        self, stage: Stage, state: RunState, attempts: _Attempts, started: float, *, failed: bool = False
    ) -> RoundRecord:
        """The line of a round, without what comes of its average."""
        answers = (*attempts.results, *attempts.repeated)
        return RoundRecord(
            round=state.round + 1,
            stage=stage.name,
            block=stage.block,
            round_of_step=state.round_of_step + 1,
            participation=len(stage.work) / len(self._fleet.clients),
            clients=tuple(attempts.results),
            rejected=attempts.rejected,
            loss=None,
            accuracy=None,
            effective_movement=None,
            slope=None,
            bytes_down=sum(result.bytes_down for result in answers),
            bytes_up=sum(result.bytes_up for result in answers),
            seconds=time.monotonic() - started,
            repeated=tuple(attempts.repeated),
            rejected_before=tuple(attempts.rejected_before),
            failed=failed,
            cut={u.client: u.cut for u in attempts.accepted if u.cut},
            stopped_early={u.client: u.share for u in attempts.accepted if u.metadata.stopped_early},
        )

    def _too_few(self, stage: Stage, state: RunState, attempts: _Attempts) -> str:
        training = self._fleet.training
        failed = attempts.failed()
        said = "; ".join(failed[:_NAMED_FAILURES]) or "nobody answered"
        more = f"; {len(failed) - _NAMED_FAILURES} more in rounds.jsonl" if len(failed) > _NAMED_FAILURES else ""
        return (
            f"{stage.title}, round {state.round_of_step + 1}: {len(attempts.accepted)} clients delivered in the last "
            f"of {training.attempts} attempts, training.min_clients is {training.min_clients} ({said}{more}); the run "
            f"is saved after round {state.round}, continue with --resume"
        )

    def _reason_to_end(self, stage: Stage, rounds: int, state: RunState, frozen: str | None) -> str | None:
        """Why the stage ends with this round, or None. The last one goes on where a round budget is left."""
        if stage.freezing is not None and frozen is not None and not stage.takes_the_rest:
            return frozen
        if state.round_of_step + 1 < rounds:
            return None
        if stage.freezing is None or stage.takes_the_rest:
            return f"its {rounds} rounds"
        return f"round cap {rounds}"

    def _evaluates(self, state: RunState, reason: str | None) -> bool:
        return reason is not None or (state.round + 1) % self._fleet.training.evaluate_every == 0

    def _evaluate(self, stage: Stage, state: RunState, weights: Weights) -> float:
        # The new weights are evaluated from a file of their own: the state still names the old ones.
        candidate = self._folder.folder / "candidate.safetensors"
        save_tensors(candidate, weights)
        try:
            accuracy, _ = self._engine.evaluate(stage.evaluated, candidate)
        finally:
            candidate.unlink()
        return accuracy

    def _collect(self, stage: Stage, rounds: int, state: RunState, weights: Mapping[str, NDArray[Any]]) -> _Attempts:
        """The attempts at one round, up to the first in which enough deliver."""
        training = self._fleet.training
        version = f"{state.round}-{state.weights_sha256[:16]}"
        attempts = _Attempts()
        for attempt in range(training.attempts):
            tasks = self._tasks(stage, rounds, state, attempt, version)
            done = 0

            def count(result: Result, of: int = len(tasks)) -> None:
                nonlocal done
                done += 1
                self._observer.client_done(result, done, of)

            attempts.set_aside()
            attempts.results, updates = self._engine.train(tasks, count)
            self._have_frozen |= _delivered(attempts.results, {task.client: task.prefix for task in tasks})
            asked = {task.client: self._asked(task) for task in tasks}
            robust = training.aggregation == "robust"
            attempts.accepted, attempts.rejected = judge(
                updates, asked, self._structure, version, weights, robust=robust
            )
            if len(attempts.accepted) >= training.min_clients:
                break
        return attempts

    def _tasks(self, stage: Stage, rounds: int, state: RunState, attempt: int, version: str) -> list[Task]:
        training = self._fleet.training
        # Another choice and another order every round and attempt, the same ones for the same run.
        number = state.round * training.attempts + attempt
        clients = sorted(stage.work, key=[client.name for client in self._fleet.clients].index)
        if training.clients_per_round is not None and training.clients_per_round < len(clients):
            generator = np.random.default_rng([training.seed, number])
            chosen = generator.choice(len(clients), training.clients_per_round, replace=False)
            clients = [clients[position] for position in sorted(chosen)]
        base = training.learning_rate if stage.learning_rate is None else stage.learning_rate
        rate = learning_rate(training, base, state.round_of_step, rounds)
        # The ramp of DepthFL's published code: full weight after the first half of the rounds.
        ramp = min(1.0, 2.0 * state.round_of_step / rounds)
        prefixes = {client: _prefix(stage, state.stage, client) for client in clients}
        return [
            Task(
                client=client,
                work=stage.work[client],
                weights=self._folder.weights_path(state.round),
                base_version=version,
                steps=training.steps if training.epochs is None else None,
                epochs=training.epochs,
                learning_rate=rate,
                seed=training.seed * 1_000_003 + number,
                prefix=prefixes[client],
                has_frozen=(client, prefixes[client]) in self._have_frozen,
                proximal=training.proximal,
                consistency=stage.consistency * float(np.exp(-5.0 * (1.0 - ramp) ** 2)),
            )
            for client in clients
        ]

    def _delivered_before(self) -> set[tuple[str, str]]:
        """Who has had a task of which prefix, from the saved rounds, so that a resumed run sends no more than one that
        was never interrupted."""
        prefixes: dict[tuple[str, int], dict[str, str | None]] = {
            (stage.name, stage.block): {client: _prefix(stage, number, client) for client in stage.work}
            for number, stage in enumerate(self._stages)
        }
        delivered = set()
        for record in self._folder.records():
            answers = (*record.repeated, *record.clients)
            # A stage that there is none of, as in another fleet's lines, has delivered nothing.
            delivered |= _delivered(answers, prefixes.get((record.stage, record.block), {}))
        return delivered

    def _asked(self, task: Task) -> Asked:
        batch, examples = self._fleet.model.batch, self._examples[task.client]
        steps = task.steps if task.steps is not None else (task.epochs or 0) * (examples // batch)
        return Asked(work=task.work, batch=batch, examples=examples, steps=steps)

    def _following(self, state: RunState, record: RoundRecord) -> RunState:
        if record.froze_because is None:
            return msgspec.structs.replace(state, round=record.round, round_of_step=record.round_of_step)
        assert record.accuracy is not None  # the last round of a stage is evaluated
        step = StepRecord(
            stage=record.stage,
            block=record.block,
            rounds=record.round_of_step,
            froze_because=record.froze_because,
            accuracy=record.accuracy,
            participation=record.participation,
        )
        last = state.stage == len(self._stages) - 1
        return msgspec.structs.replace(
            state,
            round=record.round,
            stage=state.stage if last else state.stage + 1,
            round_of_step=0,
            steps=(*state.steps, step),
            finished=last,
        )

    def _scalars(self, stage: Stage, weights: Weights) -> Scalars:
        """Sampled parameters of what is trained itself, without the output module behind it."""
        names = {name for work in stage.work.values() for name in self._structure.moving(work)}
        settings = self._fleet.freezing
        return sample_scalars({name: weights[name] for name in sorted(names)}, settings.scalars, settings.seed)

    def _history_path(self, state: RunState) -> Path:
        return self._folder.folder / "movement" / f"stage{state.stage}.safetensors"

    def _history(self, stage: Stage, state: RunState, weights: Weights) -> list[Scalars]:
        """Scalars before the stage and after each of its rounds so far; starts the file at the first of them."""
        path = self._history_path(state)
        if state.round_of_step == 0:
            scalars = self._scalars(stage, weights)
            save_tensors(path, {"000000": scalars})
            return [scalars]
        saved: dict[str, Any] = read_tensors(path)
        names = [f"{k:06d}" for k in range(state.round_of_step + 1)]
        missing = [name for name in names if name not in saved]
        if missing:
            raise FormatError(f"{path}: round {missing[0]} is missing; restore it from a copy, or start a new run")
        return [saved[name] for name in names]

    def _append_history(self, state: RunState, scalars: Scalars) -> None:
        path = self._history_path(state)
        saved = read_tensors(path)
        # A line that a killed run wrote ahead of its state is written over here.
        saved[f"{state.round_of_step + 1:06d}"] = scalars
        save_tensors(path, saved)


def _prefix(stage: Stage, number: int, client: str) -> str | None:
    """Name of the state of the blocks that are frozen for a client in a stage; None where others train them."""
    return None if stage.moves_before(stage.work[client]) else f"stage{number}"


def _delivered(results: Sequence[Result], prefixes: Mapping[str, str | None]) -> set[tuple[str, str]]:
    """Clients that had a task and did it, each with its prefix, where it has a lasting one."""
    done = {result.client for result in results if result.status == "ok"}
    return {(client, prefix) for client, prefix in prefixes.items() if client in done and prefix is not None}


def _mean_loss(results: list[Result]) -> float | None:
    """Last losses weighted by examples, over the clients that delivered."""
    known = [(r.loss_last, r.examples) for r in results if r.loss_last is not None and r.examples]
    examples = sum(count for _, count in known)
    return sum(loss * count for loss, count in known) / examples if examples else None
