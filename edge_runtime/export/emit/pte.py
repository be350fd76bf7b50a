"""Write a step graph as an ExecuTorch program (`.pte`): operators of ours only, no weights inside.

The program is written from its own schema rather than lowered through `to_edge`, because the order of operations and
the placement of every tensor are already decided, and must stay as decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from device_profiles.errors import UsageError
from device_profiles.operators import Given, violation
from edge_runtime.export.emit.executorch_package import PTEFile, ScalarType, schema, serialize_pte_binary
from edge_runtime.export.ir.graph import END_UNLESS, EXTERNAL_ROLES, ElementType, Operation, StepGraph, Value
from edge_runtime.export.plan.arena import ArenaPlan

NAMESPACE = "profl"
_ARENA_ID = 1
_SCALAR_TYPES: dict[ElementType, ScalarType] = {
    "float32": ScalarType.FLOAT,
    "bfloat16": ScalarType.BFLOAT16,
    "int64": ScalarType.LONG,
    "bool": ScalarType.BOOL,
}
_PROGRAM_VERSION = 0


class _Uncopied(list[Any]):
    """A list that a deep copy shares: ExecuTorch copies a program before it adds its segments, which ours has not."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Uncopied:
        return self


@dataclass(frozen=True, slots=True)
class _Described:
    """All that the table of operators looks at in a tensor."""

    dtype: str
    shape: tuple[int, ...]


@lru_cache(maxsize=1 << 14, typed=True)  # typed, because 1, 1.0 and True are different arguments
def _violation(operator: str, *stack: Given) -> str | None:
    return violation(operator, stack)


class _Emitter:
    def __init__(self, plan: ArenaPlan) -> None:
        self.plan = plan
        self.values: list[schema.EValue] = []
        self.tensors: dict[Value, int] = {}
        self.scalars: dict[tuple[str, object], int] = {}
        self.operators: list[schema.Operator] = []

    def _append(self, value: object) -> int:
        self.values.append(schema.EValue(value))
        return len(self.values) - 1

    def _scalar(self, key: tuple[str, object], value: object) -> int:
        if key not in self.scalars:
            self.scalars[key] = self._append(value)
        return self.scalars[key]

    def tensor(self, value: Value, *, name: str | None = None) -> int:
        if value in self.tensors:
            return self.tensors[value]
        allocation = None
        if value.root.role not in EXTERNAL_ROLES:
            offset = self.plan.placements[value.root].offset + value.offset
            allocation = schema.AllocationDetails(_ARENA_ID, offset & 0xFFFFFFFF, offset >> 32)
        extra = schema.ExtraTensorInfo(fully_qualified_name=name) if name is not None else None
        self.tensors[value] = self._append(
            schema.Tensor(
                scalar_type=_SCALAR_TYPES[value.dtype],
                storage_offset=0,
                sizes=list(value.shape),
                dim_order=list(range(len(value.shape))),
                requires_grad=False,
                layout=0,
                data_buffer_idx=0,
                allocation_info=allocation,
                shape_dynamism=schema.TensorShapeDynamism.STATIC,
                extra_tensor_info=extra,
            )
        )
        return self.tensors[value]

    def argument(self, value: object) -> int:
        if value is None:
            return self._scalar(("none", None), schema.Null())
        if isinstance(value, Value):
            return self.tensor(value)
        if isinstance(value, bool):
            return self._scalar(("bool", value), schema.Bool(value))
        if isinstance(value, int):
            return self._scalar(("int", value), schema.Int(value))
        if isinstance(value, float):
            return self._scalar(("float", value), schema.Double(value))
        assert isinstance(value, tuple)
        items = [self.argument(int(item)) for item in value]
        return self._scalar(("ints", value), schema.IntList(items))

    def operator(self, name: str) -> int:
        operator = schema.Operator(name=f"{NAMESPACE}::{name}", overload="out")
        if operator not in self.operators:
            self.operators.append(operator)
        return self.operators.index(operator)

    def instruction(self, operation: Operation, end: int) -> schema.Instruction:
        """`end` is the number of the instruction behind the last."""
        arguments = [self.argument(a) for a in (*operation.arguments, *operation.outputs)]
        if operation.operator == END_UNLESS:
            return schema.Instruction(schema.JumpFalseCall(arguments[0], destination_instruction=end))
        # What the runtime would refuse when it loads the program is not written in the first place.
        stack = (*operation.arguments, *operation.outputs)
        described = (_Described(v.dtype, v.shape) if isinstance(v, Value) else v for v in stack)
        wrong = _violation(operation.operator, *described)
        if wrong is not None:
            raise UsageError(
                f"operator {operation.operator}: {wrong}, which the runtime has no kernel for; change the layer"
            )
        return schema.Instruction(schema.KernelCall(op_index=self.operator(operation.operator), args=arguments))


def emit_program(graph: StepGraph, plan: ArenaPlan) -> bytes:
    """The bytes of a `.pte` with one method, `forward`, whose instructions are the graph's operations in order."""
    emitter = _Emitter(plan)
    inputs = [emitter.tensor(value) for value in graph.inputs]
    for value in (*graph.state, *graph.data):
        emitter.tensor(value, name=value.name)
    instructions = [emitter.instruction(operation, len(graph.operations)) for operation in graph.operations]
    outputs = [emitter.tensor(value) for value in graph.outputs]
    execution_plan = schema.ExecutionPlan(
        name="forward",
        container_meta_type=schema.ContainerMetadata("", ""),
        values=emitter.values,
        inputs=inputs,
        outputs=outputs,
        chains=[schema.Chain(inputs=[], outputs=[], instructions=instructions, stacktrace=None)],
        operators=emitter.operators,
        delegates=[],
        non_const_buffer_sizes=[0, plan.arena_bytes],
    )
    program = schema.Program(
        version=_PROGRAM_VERSION,
        execution_plan=_Uncopied([execution_plan]),
        constant_buffer=[schema.Buffer(storage=b"")],
        backend_delegate_data=[],
        segments=[],
        constant_segment=schema.SubsegmentOffsets(segment_index=0, offsets=[]),
    )
    return bytes(serialize_pte_binary(PTEFile(program=program)))
