"""DepthFL: every client trains as many of the first blocks as it holds, with a classifier behind each."""

from __future__ import annotations

from server.fleet import Fleet, MethodSettings
from server.methods.method import Promises, Stage, budget_of
from server.work import Work


class DepthFL:
    """Classifiers of one client learn from each other (self-distillation); the model answers with their mean.

    Classifiers are pooling and a linear layer each; the last one is the model's own head. As published, the weight of
    the self-distillation rises over the rounds.
    """

    name = "depthfl"
    source = "Kim, Yu, Kim, Moon, DepthFL: Depthwise Federated Learning for Heterogeneous Clients, ICLR 2023"

    def __init__(self, settings: MethodSettings) -> None:
        self._settings = settings

    def works(self, blocks: int) -> tuple[Work, ...]:
        """Every depth, the deepest first."""
        return tuple(Work(purpose="depth", block=depth) for depth in range(blocks, 0, -1))

    def stages(self, fleet: Fleet, blocks: int, promises: Promises) -> tuple[Stage, ...]:
        """One, of the round budget."""
        depths = self.works(blocks)
        held = {client: promises.first_held(client, depths) for client in promises.budgets}
        return (
            Stage(
                name="train",
                block=0,
                work={client: depth for client, depth in held.items() if depth is not None},
                evaluated=depths[0],
                rounds=budget_of(fleet, self.name),
                consistency=1.0,
            ),
        )

    def final(self, blocks: int) -> Work:
        """All classifiers of the full depth."""
        return Work(purpose="depth", block=blocks)
