"""ProFL: shrinking, distilling, growing, freezing block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from device_profiles.model import Partition
from device_profiles.work import Work, distill, grow
from server.fleet.client import Client
from server.fleet.fleet import Fleet, MethodSettings
from server.methods.method import Stage, StageName


class ProFL:
    """Progressive training of one block at a time.

    Shrinking, from the last block to the second, trains block t with the output module behind it and the blocks before
    it frozen, then distils it into its stand-in. Growing, from the first block to the last, starts from what shrinking
    left and freezes each block when its effective movement has become flat. Without shrinking, blocks and stand-ins
    start as they were initialised; with `freezing = "equal"`, every step gets as many rounds as the others.
    """

    name = "profl"
    source = "Wu, Li, Xu, Breaking the Memory Wall for Heterogeneous Federated Learning, KDD 2025"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, partition: Partition) -> tuple[Work, ...]:
        """Every block grown, and every stand-in distilled."""
        grown = [grow(partition, block.index) for block in partition.blocks]
        distilled = [distill(partition, block.index) for block in partition.blocks[1:]]
        return (*grown, *(distilled if self._settings.shrinking else ()))

    def stages(self, fleet: Fleet, partition: Partition, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """T to 2 shrunk and distilled, then 1 to T grown."""
        settings, blocks = self._settings, len(partition.blocks)
        steps = [grow(partition, block) for block in range(1, blocks + 1)]
        shrinking: list[Stage] = []
        if settings.shrinking:
            for block in range(blocks, 1, -1):
                step = steps[block - 1]
                shrinking.append(_stage("shrink", block, step, step, settings.shrink_rounds))
                # A stand-in is judged by what the model does with it: the step before, in which it is the block.
                stand_in = distill(partition, block)
                distilled = _stage("distill", block, stand_in, steps[block - 2], settings.distill_rounds)
                shrinking.append(replace(distilled, learning_rate=settings.distill_learning_rate))
        rounds = fleet.freezing.max_rounds
        spent = sum(stage.rounds for stage in shrinking)
        if settings.freezing == "equal" and fleet.training.rounds is not None:
            rounds = max(1, (fleet.training.rounds - spent) // blocks)
        growing = [_stage("grow", block, step, step, rounds) for block, step in enumerate(steps, start=1)]
        if settings.freezing == "movement":
            growing = [replace(stage, freezing=fleet.freezing) for stage in growing]
        if fleet.training.rounds is not None:
            growing[-1] = replace(growing[-1], takes_the_rest=True)
        return (*shrinking, *growing)

    def final(self, partition: Partition) -> Work:
        """The whole model: the last block behind all the others."""
        return grow(partition, len(partition.blocks))


def _stage(name: StageName, block: int, work: Work, evaluated: Work, rounds: int) -> Stage:
    return Stage(name=name, block=block, choices=(work,), evaluated=evaluated, rounds=rounds)
