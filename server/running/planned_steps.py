"""The plan of a run, which may change between two steps: other clients, other steps for what is not trained yet."""

from __future__ import annotations

import msgspec

from device_profiles.contract import STAND_IN_PREFIX, stand_in_name
from device_profiles.model import Partition
from server.engines.prepared import PreparedRun
from server.rounds.run_state import RunFolder, RunState, Weights


class PlannedSteps:
    """Holds what is trained now, `prepared`; it stays the same for clients that stay the same."""

    def __init__(self, folder: RunFolder, prepared: PreparedRun) -> None:
        self._folder = folder
        self.prepared = prepared
        self._next: PreparedRun | None = None

    def may_change(self, state: RunState) -> bool:
        """Whether there is another plan to go on with, behind a step that has ended in `state`."""
        if state.finished or state.round == 0 or state.round_of_stage:
            return False
        self._next = self.prepared.again(state)
        return self._next is not None

    def changed(self, state: RunState, weights: Weights) -> tuple[RunState, Weights]:
        """Go on with that plan: the state and the weights, which are saved."""
        assert self._next is not None
        before, self.prepared, self._next = self.prepared, self._next, None
        initial = self.prepared.initial_weights()
        weights = carried(weights, initial, before.partition, self.prepared.partition)
        following = msgspec.structs.replace(state, plan=state.plan + 1)
        return self._folder.save(following, weights, None), weights


def carried(weights: Weights, initial: Weights, before: Partition, after: Partition) -> Weights:
    """`weights` of a model that was cut like `before`, for one that is cut like `after`: stand-ins for blocks that were
    there before keep what they have learned, others are those of the `initial` weights."""
    same = set(before.blocks) & set(after.blocks)
    kept = {stand_in_name(block.index) for block in same}
    return {
        name: weights[name] if name in weights and (name in kept or not name.startswith(STAND_IN_PREFIX)) else tensor
        for name, tensor in initial.items()
    }
