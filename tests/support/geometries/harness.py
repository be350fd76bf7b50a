"""Run a call with guard values around everything that it reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_runtime.device import _operators
from edge_runtime.export.operators import IN_PLACE
from tests.support.geometries.draw import Array, Call

GUARD = 0xFF
"""Every byte: floats of any size are NaN, whole numbers are no token. What is read outside shows in the result."""
LEAST_GUARD, MOST_GUARD = 512, 1 << 16  # bytes on either side; twice a small result was once written behind it

UPDATED: dict[str, tuple[tuple[int, int], ...]] = {
    "sgd": ((0, 0), (1, 3)),
    "adamw": ((0, 0), (1, 3), (2, 4)),
    "conv2d_weight_grad_sgd": ((0, 6), (1, 8)),
    "linear_weight_grad_sgd": ((0, 2), (1, 4)),
    "batch_norm_train": ((3, 3), (4, 4)),
}
"""State, which programs always overwrite: pairs (output, argument) as in `IN_PLACE`."""


class Guarded:
    """An array with guard values around it, or alone, so that sanitizers know its end."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, *, guards: bool) -> None:
        bytes_of = int(np.prod(shape)) * np.dtype(dtype).itemsize
        guard = min(max(LEAST_GUARD, -(-bytes_of // 64) * 64), MOST_GUARD) if guards else 0
        whole = np.full(2 * guard + bytes_of, GUARD, np.uint8)
        self._around = {"before": whole[:guard], "behind": whole[guard + bytes_of :]}
        self.array: Array = whole[guard : guard + bytes_of].view(dtype).reshape(shape)

    @classmethod
    def holding(cls, values: Array, *, guards: bool) -> Guarded:
        """Of the values."""
        guarded = cls(values.shape, values.dtype, guards=guards)
        guarded.array[...] = values
        return guarded

    def written_around(self) -> str | None:
        """Where a guard value is no longer what it was."""
        for side, found in self._around.items():
            if (changed := int(np.count_nonzero(found != GUARD))) > 0:
                return f"writes {changed} bytes {side}"
        return None


class _Run:
    """One execution; `shared` are pairs (output, argument) of one place."""

    def __init__(self, call: Call, shared: tuple[tuple[int, int], ...], *, guards: bool) -> None:
        self.inputs = [
            Guarded.holding(argument, guards=guards) if isinstance(argument, np.ndarray) else argument
            for argument in call.arguments
        ]
        places = dict(shared)
        made: dict[int, Guarded] = {}
        self.outputs: list[Guarded | None] = []
        for index, result in enumerate(call.results):
            if result is None:
                self.outputs.append(None)
            elif index in places:
                self.outputs.append(self.inputs[places[index]])
            else:
                new = made.setdefault(id(result), Guarded(result.expected.shape, result.dtype, guards=guards))
                self.outputs.append(new)
        self.overwritten = set(places.values())
        arguments = [a.array if isinstance(a, Guarded) else a for a in [*self.inputs, *self.outputs]]
        self.status = _operators.call(f"profl::{call.operator}.out", arguments)

    def bits(self) -> list[bytes]:
        """Of all outputs."""
        return [output.array.tobytes() for output in self.outputs if output is not None]

    def complaints(self, call: Call) -> Iterator[str]:
        """What is wrong with everything but the values."""
        if self.status != 0:
            yield f"ends with error {self.status}"
        for name, guarded in (("result", self.outputs), ("argument", self.inputs)):
            for index, one in enumerate(guarded):
                if isinstance(one, Guarded) and (where := one.written_around()) is not None:
                    yield f"{where} {name} {index}"
        for index, (argument, one) in enumerate(zip(call.arguments, self.inputs, strict=True)):
            if isinstance(one, Guarded) and index not in self.overwritten and one.array.tobytes() != argument.tobytes():
                yield f"changes argument {index}"


def try_call(call: Call, *, threads: tuple[int, ...] = (1, 2), guards: bool = True) -> list[str]:
    """Everything that is wrong with a kernel's results: none where they are as expected.

    One thread begins with a workspace of NaN, so that what it reads and did not write shows. Results are compared with
    the expected ones; those of more threads, and those that overwrite an argument, with the first run's bits.
    """
    found: list[str] = []
    first: list[bytes] | None = None
    for count in threads:
        _operators.set_threads(count)
        for shared in [(), *_overwriting(call)] if count == threads[0] else [()]:
            if first is None:
                _operators.fill_workspace(float("nan"))
            run = _Run(call, shared, guards=guards)
            where = f"on {count} threads" if count > 1 else f"over argument {shared[0][1]}" if shared else "alone"
            found += [f"{where}: {complaint}" for complaint in run.complaints(call)]
            if first is None:
                first = run.bits()
                found += list(_differences(call, run))
            elif run.bits() != first:
                found.append(f"{where}: other bits than alone")
    return found


def _overwriting(call: Call) -> list[tuple[tuple[int, int], ...]]:
    """Each argument that the memory planner lets be overwritten, and all state at once."""
    pairs = [(pair,) for pair in IN_PLACE.get(call.operator, ()) if _fits(call, *pair)]
    state = tuple(pair for pair in UPDATED.get(call.operator, ()) if _fits(call, *pair))
    return [*pairs, *([state] if state else [])]


def _fits(call: Call, output: int, argument: int) -> bool:
    result, taken = call.results[output], call.arguments[argument]
    if result is None or not isinstance(taken, np.ndarray):
        return False
    return result.expected.shape == taken.shape and result.dtype == taken.dtype


def _differences(call: Call, run: _Run) -> Iterator[str]:
    for index, (result, output) in enumerate(zip(call.results, run.outputs, strict=True)):
        if result is not None and output is not None:
            values = _values(output.array)
            with np.errstate(invalid="ignore"):  # infinity less infinity
                wrong = ~(np.abs(values - result.expected) <= result.allowed) & (values != result.expected)
            if wrong.any():
                where = tuple(int(i) for i in np.argwhere(wrong)[0])
                yield (
                    f"result {index} is wrong in {int(wrong.sum())} of {wrong.size} places, first at {where}: "
                    f"{values[where]:.9g} instead of {result.expected[where]:.9g} "
                    f"(allowed {np.broadcast_to(np.asarray(result.allowed), wrong.shape)[where]:.3g})"
                )


def _values(array: Array) -> Array:
    """In float64; 16 bits are the upper half of a float."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)
