"""What an engine needs before the first round, made by the engine's own set-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_profiles.model import Model, Partition
from device_profiles.plan import Plan
from server.fleet.structure import Structure
from server.methods.method import Promises
from server.planner.whole_network import WholeNetwork
from server.rounds.run_state import Weights
from server.rounds.seam import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An engine with what it knows of the model and of its clients.

    Attributes:
        partition: of the model into blocks.
        model: what is trained.
        initial_weights: of round 0.
        data: the data set that was found.
        plan: from measured profiles, where there are some.
        whole_network: who could train it at once, where that was measured.
    """

    engine: Engine
    structure: Structure
    promises: Promises
    partition: Partition
    model: Model
    initial_weights: Callable[[], Weights]
    data: str
    plan: Plan | None = None
    whole_network: WholeNetwork | None = None
