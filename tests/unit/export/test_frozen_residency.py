"""Which frozen weights are read before every use, and which stay."""

from __future__ import annotations

from edge_runtime.export.ir.graph import StepGraph, Value
from edge_runtime.export.plan.frozen_residency import READ_ANEW_FROM_BYTES, read_anew, staying


def _weight(name: str, floats: int) -> Value:
    return Value(name, (floats,), "frozen")


def _graph(*reads: tuple[Value, ...]) -> StepGraph:
    graph = StepGraph()
    graph.inputs = list(dict.fromkeys(value for values in reads for value in values))
    for position, values in enumerate(reads):
        graph.emit("operation", values, (Value(f"y{position}", (1,), "temporary"),))
    return graph


def test_large_weights_are_read_before_each_operation_that_takes_them_and_small_ones_stay() -> None:
    large, larger, small = _weight("a", 10_000), _weight("b", 20_000), _weight("c", 10)
    graph = _graph((large, small), (larger, large), (large,))
    assert read_anew(graph) == {large: (0, 1, 2), larger: (1,)}
    assert staying(graph) == [small]


def test_an_operation_that_takes_a_weight_twice_reads_it_once() -> None:
    weight = _weight("a", 10_000)
    assert read_anew(_graph((weight, weight))) == {weight: (0,)}


def test_weights_below_the_bound_stay() -> None:
    at, below = _weight("a", READ_ANEW_FROM_BYTES // 4), _weight("b", READ_ANEW_FROM_BYTES // 4 - 1)
    graph = _graph((at, below))
    assert list(read_anew(graph)) == [at]
    assert staying(graph) == [below]
    assert staying(_graph()) == []
