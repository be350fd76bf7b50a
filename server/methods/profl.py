"""ProFL: shrinking, distilling, growing, freezing block by block."""

from __future__ import annotations

from collections.abc import Sequence

from server.fleet.client import Client
from server.fleet.fleet import Fleet, FreezingSettings, MethodSettings
from server.fleet.work import Work
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

    def works(self, blocks: int) -> tuple[Work, ...]:
        """Every block grown, and every stand-in distilled."""
        grown = [Work(purpose="grow", block=block) for block in range(1, blocks + 1)]
        distilled = [Work(purpose="distill", block=block) for block in range(2, blocks + 1)]
        return (*grown, *(distilled if self._settings.shrinking else ()))

    def stages(self, fleet: Fleet, blocks: int, clients: Sequence[Client]) -> tuple[Stage, ...]:
        """T to 2 shrunk and distilled, then 1 to T grown."""
        settings = self._settings
        shrinking: list[Stage] = []
        if settings.shrinking:
            for block in range(blocks, 1, -1):
                shrinking.append(self._stage("shrink", "grow", block, settings.shrink_rounds))
                distil = self._stage(
                    "distill", "distill", block, settings.distill_rounds, rate=settings.distill_learning_rate
                )
                shrinking.append(distil)
        rounds, freezing = fleet.freezing.max_rounds, fleet.freezing
        spent = sum(stage.rounds for stage in shrinking)
        if settings.freezing == "equal" and fleet.training.rounds is not None:
            rounds = max(1, (fleet.training.rounds - spent) // blocks)
        growing = [
            self._stage(
                "grow",
                "grow",
                block,
                rounds,
                freezing=freezing if settings.freezing == "movement" else None,
                last=block == blocks and fleet.training.rounds is not None,
            )
            for block in range(1, blocks + 1)
        ]
        return (*shrinking, *growing)

    def _stage(
        self,
        name: StageName,
        purpose: str,
        block: int,
        rounds: int,
        *,
        freezing: FreezingSettings | None = None,
        last: bool = False,
        rate: float | None = None,
    ) -> Stage:
        work = Work(purpose="distill" if purpose == "distill" else "grow", block=block)
        # A stand-in is judged by what the model does with it: the step before, in which it takes the block's place.
        evaluated = Work(purpose="grow", block=block - 1) if purpose == "distill" else work
        return Stage(
            name=name,
            block=block,
            choices=(work,),
            evaluated=evaluated,
            rounds=rounds,
            freezing=freezing,
            takes_the_rest=last,
            learning_rate=rate,
        )

    def final(self, blocks: int) -> Work:
        """The whole model: the last block behind all the others."""
        return Work(purpose="grow", block=blocks)
