"""A task, which a server gives to a client, and its result: the vocabulary of rounds on every engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from device_profiles.work import Work

NOT_NEEDED = "not waited for: as many as the round needs had answered"
"""The status of a task that was given to more clients than the round needs (`training.spare`); no failure."""


class TaskKey(NamedTuple):
    """What an answer names its task by: whose it is, and of which attempt of the run, counted over all rounds."""

    client: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One client's work in a round, from `weights` (safetensors, called `base_version`).

    Either `steps` or `epochs` over the client's examples. `proximal` is FedProx's mu, 0 without that term;
    `consistency` the weight of DepthFL's self-distillation. Between two tasks of the same `prefix`, a name for files,
    frozen blocks stay as they are; it is None where they change with every round. `has_frozen`: the client has had a
    task of this prefix, and with it the frozen tensors. `state`: a file of the tensors that this client's last update
    that was taken in this stage came with, None before there was one; `server_state` one of what the
    server's optimizer keeps, None where that is nothing. Together they are what SCAFFOLD's clients need.
    """

    client: str
    work: Work
    weights: Path
    base_version: str
    steps: int | None
    epochs: int | None
    learning_rate: float
    seed: int
    attempt: int = 0
    prefix: str | None = None
    has_frozen: bool = False
    proximal: float = 0.0
    consistency: float = 0.0
    state: Path | None = None
    server_state: Path | None = None

    @property
    def key(self) -> TaskKey:
        """What an answer names it by."""
        return TaskKey(self.client, self.attempt)


def diverged(reason: str) -> str:
    """What is said of a training that diverged, in a `Result.status` or of an update that is rejected."""
    return f"{_DIVERGED}{reason}"


def has_diverged(said: str) -> bool:
    """Whether it is that."""
    return said.startswith(_DIVERGED)


_DIVERGED = "diverged: "


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a task; without an update the `status` says why.

    `predicted_peak_bytes` is the promise that the server planned with; engines leave it out. Measured peak and kills
    are of the client's process. `seconds` are of the client alone, so far as the engine can tell.
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
