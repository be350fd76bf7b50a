"""Programs are written without executing ExecuTorch's package, and the package is whole when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

for _package in ("torch", "executorch"):
    pytest.importorskip(_package, reason="programs are written with its serializer")

ROOT = Path(__file__).parents[3]
_SCRIPT = """
import sys
from edge_runtime.export.emit.pte import emit_program
from edge_runtime.export.ir.graph import StepGraph, Value
from edge_runtime.export.plan.arena import plan_arena

def program():
    image, weight = Value("image", (2, 3), "input"), Value("weight", (2, 3), "parameter")
    graph = StepGraph(inputs=[image], state=[weight], outputs=[y := Value("y", (2, 3), "temporary")])
    graph.emit("add", (image, weight, False), (y,))
    return emit_program(graph, plan_arena(graph))

light = program()
for module in list(sys.modules.values()):
    getattr(module, "__warningregistry__", None)  # as the standard library does
print(sorted({"torchao", "torch._inductor", "executorch.exir.capture"} & sys.modules.keys()))

import executorch.exir
from executorch.exir._serialize._program import deserialize_pte_binary
print(executorch.exir.to_edge.__module__)
print(executorch.exir.schema.Program is type(deserialize_pte_binary(light).program))
print(program() == light)
"""


def test_a_program_has_the_same_bytes_before_and_after_the_rest_of_executorch_is_imported() -> None:
    # In an interpreter of its own: this one may have imported it.
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "executorch.exir.program._program", "True", "True"], done.stderr
