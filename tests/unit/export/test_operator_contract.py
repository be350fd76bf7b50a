"""What the runtime would refuse when it loads a program is not written in the first place."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the exporter needs torch")

from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export.emit.pte import emit_program  # noqa: E402
from edge_runtime.export.ir.graph import StepGraph, Value  # noqa: E402
from edge_runtime.export.plan.arena import plan_arena  # noqa: E402


def _program(shape: tuple[int, ...]) -> bytes:
    a, b = Value("a", (2, 3), "parameter"), Value("b", shape, "parameter")
    graph = StepGraph(state=[a, b], outputs=[y := Value("y", (2, 3), "temporary")])
    graph.emit("add", (a, b, False), (y,))
    return emit_program(graph, plan_arena(graph))


def test_what_keeps_to_the_table_is_written() -> None:
    assert _program((3, 2))[4:8] == b"ET12"


def test_what_does_not_is_refused_with_its_operator_and_argument() -> None:
    with pytest.raises(UsageError, match=r"operator add: b is float32 \[2, 4\], takes float32 \[\*E\]") as raised:
        _program((2, 4))
    assert "\n" not in str(raised.value)
