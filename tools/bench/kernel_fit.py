"""From measured operations to prices of what their kernels do: least squares of relative errors, none below zero."""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from edge_runtime.export.ir.graph import Operation
from edge_runtime.export.plan.element_amounts import Amounts
from edge_runtime.export.plan.loads import family_of
from edge_runtime.export.plan.reference_core import CALL, READ, amounts

CALL_NANOSECONDS = 300.0
_LEAST_SECONDS = 3e-6
"""Below this a call of a clock counts."""
_DESCENTS = 5000
_READ_BYTES = 8 << 20
_READS = 30


@dataclass(frozen=True, slots=True)
class Fit:
    """Prices in nanoseconds, and by families of kernels the relative errors of what was measured."""

    prices: Amounts
    errors: dict[str, list[float]]


def fit_prices(measured: Iterable[tuple[Operation, float]], *, read_byte: float) -> Fit:
    """Of operations with the seconds of their quickest executions: other work only slows a machine. `read_byte`: the
    nanoseconds of a byte that is read from a file (`reading_price`)."""
    families: dict[str, list[tuple[Operation, float]]] = defaultdict(list)
    for operation, seconds in measured:
        if seconds >= _LEAST_SECONDS:
            families[_part(operation)].append((operation, seconds))
    prices = {CALL: CALL_NANOSECONDS, READ: read_byte}
    errors: dict[str, list[float]] = {}
    for name, family in families.items():
        errors[name] = _fit(family, prices)
    return Fit(prices, errors)


def _part(operation: Operation) -> str:
    """Operations whose amounts share prices. Weight gradients that are direct sums have their own."""
    family = family_of(operation)
    if family in ("convolution", "pointwise"):
        return "weight sums" if operation.operator.startswith("conv2d_weight_grad") else "direct"
    return family


def _fit(rows: Sequence[tuple[Operation, float]], prices: Amounts) -> list[float]:
    """Add the prices of what `rows` do to `prices`; the errors that are left."""
    found = [amounts(operation) for operation, _ in rows]
    names = sorted({name for one in found for name in one} - set(prices))
    nanoseconds = np.array([seconds * 1e9 for _, seconds in rows])
    known = np.array([sum(prices.get(name, 0.0) * amount for name, amount in one.items()) for one in found])
    shares = np.array([[one.get(name, 0.0) for name in names] for one in found]) / nanoseconds[:, None]
    scale = shares.max(axis=0)
    scale[scale == 0] = 1.0  # of what no operation does, so that its price is 0
    # A step is mostly its long operations.
    weight = np.clip(np.sqrt(nanoseconds / 1e6), 0.3, 3.0)
    rest = np.maximum(1 - known / nanoseconds, 0.0)
    solution = _least_squares(weight[:, None] * shares / scale, weight * rest)
    errors = shares @ (solution / scale) + known / nanoseconds - 1
    prices |= dict(zip(names, (solution / scale).tolist(), strict=True))
    return [float(error) for error in errors]


def _least_squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x of at least 0 with the least |a x - b|: coordinate descent, each step of which is exact.

    SciPy 1.17's `nnls` writes behind its buffers for some of these, and its `bvls` stops early.
    """
    gram, target, x = a.T @ a, a.T @ b, np.zeros(a.shape[1])
    for _ in range(_DESCENTS):
        for j in range(len(x)):
            if gram[j, j] > 0:
                x[j] = max(0.0, x[j] + (target[j] - gram[j] @ x) / gram[j, j])
    return x


def reading_price(folder: Path) -> float:
    """Nanoseconds of a byte of a file that the system has in memory: the quickest of some reads."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_READ_BYTES))
        file.flush()
        buffer, took = bytearray(_READ_BYTES), []
        for _ in range(_READS):
            began = time.perf_counter_ns()
            os.preadv(file.fileno(), [buffer], 0)
            took.append(time.perf_counter_ns() - began)
    return min(took) / _READ_BYTES


def report(fit: Fit) -> str:
    """The prices as they stand in `reference_core.py`, and how far they are off."""
    lines = [f'    "{name}": {price:.3g},' for name, price in sorted(fit.prices.items())]
    for name, errors in sorted(fit.errors.items()):
        off = [abs(error) for error in errors]
        lines.append(
            f"# {name}: {len(errors)} operations, median error {median(off):.1%}, {median(errors):+.1%} on average"
        )
    return "\n".join(lines)
