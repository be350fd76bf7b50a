"""What a run says of its finished stages and rounds."""

from __future__ import annotations

import msgspec

from device_profiles.task import Result


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished stage, as `summary.json` lists it; `block` is 0 where it trained the whole network."""

    stage: str
    block: int
    rounds: int
    froze_because: str
    accuracy: float | None
    participation: float = 0.0
    test_loss: float | None = None


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `rounds.jsonl`.

    `participation` is the share of the fleet that has work in this stage. `accuracy` is None in a round without an
    evaluation, and where outputs are compared with numbers; `test_loss` is of the same evaluation.
    `repeated` holds the results of earlier attempts, in which fewer than min_clients delivered, and
    `rejected_before` the updates rejected in each of them. `failed`: too few delivered in the last attempt as well, and
    the run stopped; `round` is then the number that the next round has when the run goes on.
    `stopped_early`: clients that `training.max_seconds` stopped, each with the share of its work that it had done and
    its update counts by. `cut`: clients whose update was beyond the bounds that the others set, with what was cut down.
    `work`: what each client was asked for, by name. `late`: clients whose answer to an earlier task came only in this
    round, and was refused. `epsilon`: with differential privacy, what the run has cost the device that took part most
    often. `rate_halvings`: how often the learning rate of the stage has been halved so far, because clients diverged.
    """

    round: int
    stage: str
    block: int
    round_of_stage: int = msgspec.field(name="round_of_step")
    participation: float
    clients: tuple[Result, ...]
    rejected: dict[str, str]
    loss: float | None
    accuracy: float | None
    effective_movement: float | None
    slope: float | None
    bytes_down: int
    bytes_up: int
    seconds: float
    froze_because: str | None = None
    repeated: tuple[Result, ...] = ()
    rejected_before: tuple[dict[str, str], ...] = ()
    failed: bool = False
    stopped_early: dict[str, float] = {}
    cut: dict[str, str] = {}
    work: dict[str, str] = {}
    late: tuple[str, ...] = ()
    epsilon: float | None = None
    test_loss: float | None = None
    rate_halvings: int = 0

    @property
    def taken(self) -> list[str]:
        """Clients whose update is in the mean."""
        return [
            result.client for result in self.clients if result.status == "ok" and result.client not in self.rejected
        ]
