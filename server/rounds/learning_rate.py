"""The learning rate of a round, from how far its stage has come."""

from __future__ import annotations

import math

from server.fleet.fleet import TrainingSettings


def learning_rate(settings: TrainingSettings, base: float, round_of_stage: int, rounds: int) -> float:
    """The rate of round `round_of_stage` (0-based) of a stage of at most `rounds`; starts from `base`.

    `constant`; `cosine`: base/2 (1 + cos(pi r / R)) (Loshchilov, Hutter, ICLR 2017, without restarts); `step`: divided
    by 10 at every one of `milestones`, which are shares of the stage. With w warm-up rounds, round r < w has
    (r + 1) / (w + 1) of that.
    """
    if round_of_stage < settings.warmup_rounds:
        base *= (round_of_stage + 1) / (settings.warmup_rounds + 1)
    progress = round_of_stage / max(rounds, 1)
    if settings.schedule == "cosine":
        return base * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    if settings.schedule == "step":
        return float(base * 0.1 ** sum(progress >= milestone for milestone in settings.milestones))
    return base
