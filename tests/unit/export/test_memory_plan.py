"""The arena plan: lifetimes, in-place aliases and placement, checked against a byte-by-byte simulation."""

from __future__ import annotations

import random

import pytest

from edge_runtime.export.ir.graph import StepGraph, Value
from edge_runtime.export.plan.arena import plan_arena, storage_lifetimes
from edge_runtime.export.plan.frozen_residency import READ_ANEW_FROM_BYTES


def _chain(length: int) -> StepGraph:
    graph = StepGraph()
    current = Value("images", (4,), "input")
    graph.inputs.append(current)
    for i in range(length):
        following = Value(f"v{i}", (4,), "temporary")
        graph.emit("activation", (current,), (following,))
        current = following
    graph.outputs.append(current)
    return graph


def test_a_chain_of_in_place_operations_needs_one_tensor() -> None:
    # The last one is the program's output and keeps its own bytes.
    assert plan_arena(_chain(6)).live_bytes == 2 * 16


def test_state_lives_during_the_whole_step() -> None:
    graph = _chain(3)
    weight = Value("weight", (10,), "parameter")
    graph.state.append(weight)
    assert storage_lifetimes(graph)[weight] == (0, 2)


def test_an_argument_read_again_later_is_not_overwritten() -> None:
    graph = StepGraph()
    x = Value("images", (4,), "input")
    graph.inputs.append(x)
    a, b, c = (Value(n, (4,), "temporary") for n in "abc")
    graph.emit("activation", (x,), (a,))
    graph.emit("activation", (a,), (b,))
    graph.emit("add", (a, b, False), (c,))
    graph.outputs.append(c)
    plan_arena(graph)
    assert b.root is b


def _weight(name: str, floats: int = READ_ANEW_FROM_BYTES // 4) -> Value:
    return Value(name, (floats,), "frozen")


def _reading(graph: StepGraph, *reads: tuple[Value, ...]) -> StepGraph:
    """Operations behind those of `graph`, each with a small output, that read these values."""
    graph.inputs += dict.fromkeys(value for values in reads for value in values if value.role == "frozen")
    for position, values in enumerate(reads):
        graph.emit("operation", values, (Value(f"y{position}", (16,), "temporary"),))
    return graph


def test_a_frozen_tensor_takes_room_that_is_free_while_it_is_read() -> None:
    weight, activation = _weight("weight"), Value("activation", (READ_ANEW_FROM_BYTES // 4,), "activation")
    graph = _reading(StepGraph(), (weight,))
    graph.emit("operation", (), (activation,))
    graph.emit("operation", (activation,), ())
    plan = plan_arena(graph)
    assert plan.placements[weight].spans == ((0, 0),)
    assert plan.arena_bytes == READ_ANEW_FROM_BYTES + 64
    assert plan.live_bytes == READ_ANEW_FROM_BYTES + 64


def test_frozen_tensors_of_one_operation_lie_beside_each_other_and_of_two_in_one_place() -> None:
    first, second, third = (_weight(name) for name in "abc")
    plan = plan_arena(_reading(StepGraph(), (first, second), (third,)))
    a, b, c = (plan.placements[value].offset for value in (first, second, third))
    assert sorted((a, b)) == [64, 64 + READ_ANEW_FROM_BYTES] and c == 64
    assert plan.live_bytes == 2 * READ_ANEW_FROM_BYTES + 64


def test_a_tensor_that_is_read_twice_keeps_one_place_that_is_free_both_times() -> None:
    weight, small = _weight("weight"), Value("small", (16,), "activation")
    graph = _reading(StepGraph(), (weight,))
    graph.emit("operation", (), (small,))
    _reading(graph, (weight, small))
    plan = plan_arena(graph)
    assert plan.placements[weight].spans == ((0, 0), (2, 2))
    assert plan.arena_bytes == READ_ANEW_FROM_BYTES + 2 * 64


@pytest.mark.parametrize("seed", range(20))
def test_no_operation_destroys_a_tensor_that_is_read_later(seed: int) -> None:
    """Simulate the plan: every write stamps its bytes, every read must find the stamp of the tensor it means.

    Frozen tensors are written by the runtime, right before each operation that reads them.
    """
    generator = random.Random(seed)
    graph = _random_graph(generator)
    plan = plan_arena(graph)
    stamps: dict[int, str] = {}

    def span(value: Value) -> range:
        place = plan.placements[value.root]
        return range(place.offset, place.offset + value.bytes)

    for position, operation in enumerate(graph.operations):
        for value, placed in plan.placements.items():
            if value.role == "frozen" and placed.alive_at(position):
                stamps.update(dict.fromkeys(span(value), value.name))
        for value in operation.reads:
            if value.root.role != "input":
                assert {stamps[byte] for byte in span(value)} == {value.name}
        for value in operation.writes:
            stamps.update(dict.fromkeys(span(value), value.name))
        # Not even an operation's own output takes the bytes of the weights that it reads.
        assert all({stamps[byte] for byte in span(v)} == {v.name} for v in operation.reads if v.role == "frozen")
    for value in graph.outputs:
        assert {stamps[byte] for byte in span(value)} == {value.name}
    assert plan.arena_bytes >= plan.live_bytes
    assert any(value.role == "frozen" for value in plan.placements)


def _random_graph(generator: random.Random) -> StepGraph:
    graph = StepGraph()
    images = Value("images", (16,), "input")
    weights = [_weight(f"w{i}", READ_ANEW_FROM_BYTES // 4 + 16 * i) for i in range(4)]
    graph.inputs += [images, *weights]
    known = [images]
    for i in range(40):
        a, b = generator.choice(known[-6:]), generator.choice(known)
        out = Value(f"v{i}", (generator.choice((16, 16, 16, 48, 5000)),), "temporary")
        if a.shape == b.shape == out.shape:
            graph.emit("add", (a, b, False), (out,))
        else:
            graph.emit("unfused", (a, b, *generator.sample(weights, generator.choice((0, 0, 1, 2)))), (out,))
        known.append(out)
    graph.outputs.append(known[-1])
    return graph
