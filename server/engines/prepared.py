"""What a run needs before its first round, made by the set-up of its engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_profiles.model import Model, Partition
from device_profiles.plan import Plan
from server.fleet.structure import Structure
from server.planner.whole_network import WholeNetwork
from server.rounds.run_state import RunState, Weights
from server.rounds.seam import Engine, Evaluator


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRun:
    """An engine and its evaluator, with what is known of the model.

    Attributes:
        partition: of the model into blocks.
        model: what is trained.
        initial_weights: of round 0.
        data: the data set that was found.
        plan: from measured profiles, where there are some.
        whole_network: who could train it at once, where that was measured.
        absent_seconds: what an attempt waits for clients that may still come.
        again: asked between two steps, with the state of the run: the same with another plan for the steps that remain;
            None where the plan still does. The old one is used no more then.
        close: ends what the engine has started; called once, however the run ends.
    """

    engine: Engine
    evaluator: Evaluator
    structure: Structure
    partition: Partition
    model: Model
    initial_weights: Callable[[], Weights]
    data: str
    plan: Plan | None = None
    whole_network: WholeNetwork | None = None
    absent_seconds: float = 0.0
    again: Callable[[RunState], PreparedRun | None] = lambda state: None
    close: Callable[[], None] = lambda: None
