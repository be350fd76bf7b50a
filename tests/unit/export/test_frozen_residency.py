"""Frozen weights that are read before every use share one memory, and no operation needs two of them."""

from __future__ import annotations

from edge_runtime.export.frozen_residency import READ_ANEW_FROM_BYTES, frozen_residency
from edge_runtime.export.graph import StepGraph, Value


def _weight(name: str, floats: int) -> Value:
    return Value(name, (floats,), "frozen")


def _graph(*reads: tuple[Value, ...]) -> StepGraph:
    graph = StepGraph()
    graph.inputs = list(dict.fromkeys(value for values in reads for value in values))
    for position, values in enumerate(reads):
        graph.emit("operation", values, (Value(f"y{position}", (1,), "temporary"),))
    return graph


def test_large_weights_take_the_room_of_the_largest_and_small_ones_their_own() -> None:
    large, larger, small = _weight("a", 10_000), _weight("b", 20_000), _weight("c", 10)
    found = frozen_residency(_graph((large, small), (larger,), (large,)))
    assert found.released_after == {large: (0, 2), larger: (1,)}
    assert found.peak_bytes == 80_000 + 64


def test_of_two_in_one_operation_the_smaller_stays() -> None:
    first, second, third = (_weight(name, floats) for name, floats in (("a", 10_000), ("b", 20_000), ("c", 30_000)))
    found = frozen_residency(_graph((first, second), (third, first), (third,)))
    assert found.released_after == {third: (1, 2), second: (0,)}
    assert found.peak_bytes == 120_000 + 40_000


def test_weights_below_the_bound_stay_and_no_weights_take_nothing() -> None:
    below = _weight("a", READ_ANEW_FROM_BYTES // 4 - 1)
    assert frozen_residency(_graph((below,))).released_after == {}
    assert frozen_residency(_graph()).peak_bytes == 0
