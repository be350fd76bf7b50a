"""AdamW's corrections for moments that start at zero: all of the optimizer that differs from step to step."""

from __future__ import annotations

import math


def bias_corrections(beta1: float, beta2: float, step: int) -> tuple[float, float]:
    """1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) with t = `step` + 1.

    They follow from the number of the step alone, so that a resumed run continues with the same ones.
    """
    count = step + 1
    return 1.0 / (1.0 - beta1**count), 1.0 / math.sqrt(1.0 - beta2**count)


def of_step(hyperparameters: list[float], betas: tuple[float, float] | None, step: int) -> list[float]:
    """The hyperparameters of an execution of the first step as those of `step`; only AdamW's differ (`betas`)."""
    if betas is None:
        return hyperparameters
    return [hyperparameters[0], *bias_corrections(*betas, step), *hyperparameters[3:]]
