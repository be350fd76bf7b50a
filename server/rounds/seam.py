"""The seam between a schedule and whatever carries the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from device_profiles.work import Work
from server.averaging.aggregation import ReceivedUpdate


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One client's work in a round, from `weights` (safetensors, called `base_version`).

    Either `steps` or `epochs` over the client's examples. `proximal` is FedProx's mu, 0 without that term;
    `consistency` the weight of DepthFL's self-distillation. Between two tasks of the same `prefix`, a name for files,
    frozen blocks stay as they are; it is None where they change with every round. `has_frozen`: the client has had a
    task of this prefix, and with it the frozen tensors.
    """

    client: str
    work: Work
    weights: Path
    base_version: str
    steps: int | None
    epochs: int | None
    learning_rate: float
    seed: int
    prefix: str | None = None
    has_frozen: bool = False
    proximal: float = 0.0
    consistency: float = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a task; without `update` the `status` says why.

    Peak and kills are of the client's process. `seconds` are of the client alone, so far as the engine can tell.
    """

    client: str
    status: str
    seconds: float
    examples: int = 0
    steps: int = 0
    loss_first: float | None = None
    loss_last: float | None = None
    predicted_peak_bytes: int | None = None
    measured_peak_bytes: int | None = None
    oom_kills: int = 0
    limit_kind: str = "none"
    bytes_down: int = 0
    bytes_up: int = 0


class Engine(Protocol):
    """Gives tasks to clients and collects what comes back; a client that fails is a result, not an exception."""

    def train(self, tasks: Sequence[Task], done: Callable[[Result], None]) -> tuple[list[Result], list[ReceivedUpdate]]:
        """Run all tasks; `done` is told each result as it comes."""

    def evaluate(self, work: Work, weights: Path, *, full: bool = False) -> tuple[float, float]:
        """Accuracy and loss on the test set of what `work` trains; raises ExecutionError.

        Without `full` a draw of `test_examples` of the fleet file, which follows the rounds cheaply.
        """
