"""Runs the rounds of a method's stages, one after the other, and saves the run after each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from device_profiles.errors import ExecutionError, FormatError
from server.averaging.means import mean_of
from server.averaging.optimizers import create_optimizer
from server.averaging.optimizers.optimizer import ServerOptimizer
from server.averaging.private import PrivacyBudget
from server.averaging.server_step import next_tensors
from server.averaging.spool import Spool
from server.averaging.tensor_files import save_tensors
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.fleet.structure import Structure
from server.methods.method import Stage
from server.planner.assignment import BestHeld, Planner
from server.rounds.asking import Asking
from server.rounds.attempts import mean_loss, round_record, too_few
from server.rounds.checks import check_stages
from server.rounds.client_states import ClientStates
from server.rounds.collecting import Collector
from server.rounds.freezing import EffectiveMovementFreezing
from server.rounds.frozen_prefixes import FrozenPrefixes
from server.rounds.movement import MovementHistory
from server.rounds.observer import Observer
from server.rounds.records import RoundRecord, StepRecord
from server.rounds.run_state import RunFolder, RunState, Weights
from server.rounds.seam import Engine, Evaluator
from server.rounds.tasks import RoundPlace


class Schedule:
    """Runs the rounds of a run from its saved state to its end."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        stages: Sequence[Stage],
        structure: Structure,
        engine: Engine,
        evaluator: Evaluator,
        folder: RunFolder,
        observer: Observer,
        planner: Planner | None = None,
        optimizer: Callable[[], ServerOptimizer] | None = None,
        absent_seconds: float = 0.0,
    ) -> None:
        """`planner`: says who does what; by default everybody does the best of a stage's choices that it holds.
        `optimizer`: makes the server's for each stage; by default the one that the fleet file names.
        `absent_seconds`: what an attempt waits for clients where fewer are there than a round needs."""
        self._fleet = fleet
        self._stages = stages
        self._structure = structure
        self._evaluator = evaluator
        self._folder = folder
        self._observer = observer
        self._planner = BestHeld() if planner is None else planner
        self._spool = Spool(folder.folder / "updates")
        deadline = fleet.training.deadline_seconds
        self._collector = Collector(engine, self._spool, deadline, absent_seconds=absent_seconds)
        self._prefixes = FrozenPrefixes()
        self._states = ClientStates(folder.folder / "client_state")
        self._asking = Asking(
            fleet, structure, self._planner, self._collector, self._prefixes, self._states, observer.client_done
        )
        self._make_optimizer = optimizer or (lambda: create_optimizer(fleet.training))
        self._mean = mean_of(fleet.training, fleet.privacy)
        self._privacy = PrivacyBudget(fleet.privacy)
        self._optimizer = (-1, self._make_optimizer())
        """With the number of the stage that it is in."""
        self._movement = MovementHistory(folder.folder, structure, fleet.freezing)

    @property
    def clients(self) -> tuple[Client, ...]:
        """Everybody who was ever there while this process ran."""
        return self._collector.roster.seen

    def run(
        self, state: RunState, weights: Weights, stops: Callable[[RunState], bool] = lambda state: False
    ) -> tuple[RunState, Weights]:
        """Train until every stage has ended, or to the end of one behind which it `stops`; the state is saved after
        every round.

        Raises ExecutionError before the first round where the round budget is smaller than the number of stages, or too
        few can take part in one of them; and when too few deliver.
        """
        clients = self._collector.roster.clients
        check_stages(self._fleet, self._stages, clients, self._planner, done=state.stage)
        if state.stage >= len(self._stages):
            raise FormatError(
                f"{self._folder.folder}: its state is in stage {state.stage}; there are {len(self._stages)}"
            )
        self._spool.clear()
        self._states.drop_after(state.round)
        self._replay()
        while not state.finished:
            state, weights = self._run_stage(self._stages[state.stage], state, weights)
            if not state.finished and stops(state):
                break
        return state, weights

    def _replay(self) -> None:
        """Learn from the saved rounds who has what, so that a resumed run sends no more than one that was never
        interrupted."""
        numbers = {(str(stage.name), stage.block): number for number, stage in enumerate(self._stages)}
        for record in self._folder.records():
            self._privacy.took_part(record.taken)
            # A stage that there is none of, as in another fleet's lines, has delivered nothing.
            number = numbers.get((record.stage, record.block))
            if number is None:
                continue
            stage = self._stages[number]
            names = {work.name: work for work in stage.choices}
            done = {client: names[name] for client, name in record.work.items() if name in names}
            # Lines of releases without it: everybody did what it does now.
            work = done or self._planner.assign(stage, self._collector.roster.clients)
            self._prefixes.answered(number, work, (*record.repeated, *record.clients))
            averaged = {result.client for result in record.clients}
            self._prefixes.trained(number, record.round, [w for client, w in work.items() if client in averaged])

    def _run_stage(self, stage: Stage, state: RunState, weights: Weights) -> tuple[RunState, Weights]:
        rounds = self._rounds(stage, state)
        working = self._planner.assign(stage, self._collector.roster.clients)
        self._observer.stage_started(stage, rounds, len(working))
        if state.round_of_stage == 0:
            self._states.clear()
        settings = self._fleet.freezing if stage.freezing is None else stage.freezing
        movement = EffectiveMovementFreezing(settings, self._movement.read(stage, state, weights))
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
        left = max(1, budget - (state.round - state.round_of_stage) - later)
        return left if stage.takes_the_rest else min(stage.rounds, left)

    def _round(
        self, stage: Stage, rounds: int, state: RunState, weights: Weights, movement: EffectiveMovementFreezing
    ) -> tuple[RunState, Weights, bool]:
        started = time.monotonic()
        place = RoundPlace(
            stage=stage,
            rounds=rounds,
            state=state,
            weights=self._folder.weights_path(state),
            server_state=self._folder.optimizer_path(state.round) if state.optimizer_sha256 else None,
            rate_halvings=state.rate_halvings,
        )
        attempts = self._asking.ask(place, weights)
        state = msgspec.structs.replace(state, rate_halvings=attempts.rate_halvings)
        if len(attempts.accepted) < self._fleet.training.min_clients:
            self._folder.save_failure(state, round_record(place, attempts, time.monotonic() - started, failed=True))
            self._spool.clear()
            raise ExecutionError(too_few(self._fleet, place, attempts))
        optimizer = self._optimizer_of(state)
        parameters = self._structure.parameters(attempts.trained())
        weights = weights | next_tensors(
            attempts.accepted, weights, parameters, optimizer, held_frozen=stage.held_frozen, mean=self._mean
        )
        scalars = self._movement.scalars(stage, weights)
        reason = self._reason_to_end(stage, rounds, state, movement.observe(scalars))
        accuracy, test_loss = self._evaluate(stage, weights) if self._evaluates(state, reason) else (None, None)
        record = msgspec.structs.replace(
            round_record(place, attempts, time.monotonic() - started),
            loss=mean_loss([result for result in attempts.results if result.client not in attempts.rejected]),
            accuracy=accuracy,
            test_loss=test_loss,
            epsilon=self._privacy.took_part(update.client for update in attempts.accepted),
            effective_movement=movement.movements[-1] if movement.movements else None,
            slope=movement.slope,
            froze_because=reason,
        )
        self._movement.append(state, scalars)
        self._prefixes.trained(state.stage, record.round, attempts.trained())
        # A stage trains something else, and its optimizer starts anew.
        kept = optimizer.state if reason is None else {}
        self._states.keep(record.round, {update.client for update in attempts.accepted})
        saved = self._folder.save(self._following(state, record), weights, record, kept)
        self._spool.clear()
        self._states.drop_replaced()
        self._observer.round_done(record)
        return saved, weights, reason is not None

    def _optimizer_of(self, state: RunState) -> ServerOptimizer:
        """The server's optimizer in the stage, as the round before left it."""
        number, optimizer = self._optimizer
        if number != state.stage:
            optimizer = self._make_optimizer()
            optimizer.state = self._folder.optimizer_state(state)
            self._optimizer = (state.stage, optimizer)
        return optimizer

    def _reason_to_end(self, stage: Stage, rounds: int, state: RunState, frozen: str | None) -> str | None:
        """Why the stage ends with this round, or None. The last one goes on where a round budget is left."""
        if stage.freezing is not None and frozen is not None and not stage.takes_the_rest:
            return frozen
        if state.round_of_stage + 1 < rounds:
            return None
        if stage.freezing is None or stage.takes_the_rest:
            return f"its {rounds} rounds"
        return f"round cap {rounds}"

    def _evaluates(self, state: RunState, reason: str | None) -> bool:
        return reason is not None or (state.round + 1) % self._fleet.training.evaluate_every == 0

    def _evaluate(self, stage: Stage, weights: Weights) -> tuple[float | None, float]:
        # The new weights are evaluated from a file of their own: the state still names the old ones.
        candidate = self._folder.folder / "candidate.safetensors"
        save_tensors(candidate, weights)
        try:
            return self._evaluator.evaluate(stage.evaluated, candidate)
        finally:
            candidate.unlink()

    def _following(self, state: RunState, record: RoundRecord) -> RunState:
        if record.froze_because is None:
            return msgspec.structs.replace(state, round=record.round, round_of_stage=record.round_of_stage)
        step = StepRecord(
            stage=record.stage,
            block=record.block,
            rounds=record.round_of_stage,
            froze_because=record.froze_because,
            accuracy=record.accuracy,
            test_loss=record.test_loss,
            participation=record.participation,
        )
        last = state.stage == len(self._stages) - 1
        return msgspec.structs.replace(
            state,
            round=record.round,
            stage=state.stage if last else state.stage + 1,
            round_of_stage=0,
            # Nearer to what it was set to, in case this stage can take it.
            rate_halvings=max(0, state.rate_halvings - 1),
            steps=(*state.steps, step),
            finished=last,
        )
