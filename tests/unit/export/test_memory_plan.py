"""The arena plan: lifetimes, in-place aliases and placement, checked against a byte-by-byte simulation."""

from __future__ import annotations

import random

import pytest

from edge_runtime.export.graph import StepGraph, Value
from edge_runtime.export.memory_plan import plan_arena, storage_lifetimes


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


@pytest.mark.parametrize("seed", range(20))
def test_no_operation_destroys_a_tensor_that_is_read_later(seed: int) -> None:
    """Simulate the plan: every write stamps its bytes, every read must find the stamp of the tensor it means."""
    generator = random.Random(seed)
    graph = _random_graph(generator)
    plan = plan_arena(graph)
    stamps: dict[int, str] = {}

    def span(value: Value) -> range:
        place = plan.placements[value.root]
        return range(place.offset, place.offset + value.bytes)

    for operation in graph.operations:
        for value in operation.reads:
            if value.root.role != "input":
                assert {stamps[byte] for byte in span(value)} == {value.name}
        for value in operation.writes:
            stamps.update(dict.fromkeys(span(value), value.name))
    for value in graph.outputs:
        assert {stamps[byte] for byte in span(value)} == {value.name}
    assert plan.arena_bytes >= plan.live_bytes


def _random_graph(generator: random.Random) -> StepGraph:
    graph = StepGraph()
    images = Value("images", (16,), "input")
    graph.inputs.append(images)
    known = [images]
    for i in range(40):
        a, b = generator.choice(known[-6:]), generator.choice(known)
        out = Value(f"v{i}", (generator.choice((16, 16, 16, 48)),), "temporary")
        if a.shape == b.shape == out.shape:
            graph.emit("add", (a, b, False), (out,))
        else:
            graph.emit("unfused", (a, b), (out,))
        known.append(out)
    graph.outputs.append(known[-1])
    return graph
