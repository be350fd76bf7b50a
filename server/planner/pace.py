"""How long a round takes, and how many rounds a step has: what makes the time of a run of a step of training."""

from __future__ import annotations

from dataclasses import dataclass

from device_profiles.costs import RunCost
from device_profiles.manifest import Program
from server.fleet.fleet import Fleet

_BYTES_OF_MEGABIT = 125_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What a fleet asks of a client in a round, and how long a step lasts.

    Attributes:
        local_steps: of a round; None where a round has `epochs` over a client's own examples.
        batch: examples of one step.
        examples: of a client that does not say how many it has.
        download, upload: bytes that a client receives and sends in a second.
        most_rounds: after so many a step ends at the latest; None where every step has the same share of `rounds`.
        usual_rounds: so many it has as a rule.
        rounds: of the whole run, None where it ends with its last step.
    """

    local_steps: int | None
    epochs: int = 1
    batch: int = 1
    examples: int = 0
    download: float
    upload: float
    most_rounds: int | None
    usual_rounds: int = 1
    rounds: int | None = None

    @property
    def most_steps(self) -> int | None:
        """As many as leave half of the rounds to the last one, as a rule; None where that says nothing."""
        if self.most_rounds is None or self.rounds is None:
            return None
        return 1 + self.rounds // 2 // self.usual_rounds

    def round_seconds(self, step_seconds: float, plan: Program | RunCost | None, examples: int) -> float:
        """Of a client: its local steps, with its weights received before and its update sent behind them."""
        steps = self.local_steps
        if steps is None:
            steps = self.epochs * max(1, (examples or self.examples) // self.batch)
        seconds = step_seconds * steps
        if isinstance(plan, RunCost):
            seconds += plan.download_bytes / self.download + plan.upload_bytes / self.upload
        return seconds

    def rounds_of(self, before: int, *, last: bool) -> int:
        """Rounds of a step with so many steps `before` it, at most; `last`: the one that ends with the model. Where all
        steps have the same, which depends on how many there are, one stands for them."""
        if self.most_rounds is None:
            return 1
        if last and self.rounds is not None:
            return max(1, self.rounds - before * self.most_rounds)
        return self.most_rounds

    def schedule(self, steps: int) -> list[int]:
        """Rounds of each of so many steps, at most."""
        if self.most_rounds is None and self.rounds is not None:
            return [max(1, self.rounds // steps)] * steps
        return [self.rounds_of(number, last=number == steps - 1) for number in range(steps)]


def pace_of(fleet: Fleet, *, rounds: int | None = None) -> Pace:
    """As the fleet file has it; `rounds` are those that remain of a run that has begun."""
    training = fleet.training
    whole = training.rounds if rounds is None else rounds
    equal = fleet.method.freezing == "equal" and whole is not None
    # Steps of the studies (docs/results.md) end after one and a half to two and a half times the rounds that the rule
    # takes at least.
    usual = 2 * (fleet.freezing.window + fleet.freezing.fit_length + fleet.freezing.patience - 2)
    return Pace(
        local_steps=training.steps if training.epochs is None else None,
        epochs=training.epochs or 1,
        batch=fleet.model.batch,
        examples=fleet.data.examples_per_client or 0,
        download=training.download_mbit * _BYTES_OF_MEGABIT,
        upload=training.upload_mbit * _BYTES_OF_MEGABIT,
        most_rounds=None if equal else fleet.freezing.max_rounds,
        usual_rounds=min(usual, fleet.freezing.max_rounds),
        rounds=whole,
    )
