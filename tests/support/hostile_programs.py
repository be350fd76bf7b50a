"""Programs that no exporter writes: a real one, changed through ExecuTorch's own schema and written again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_runtime.export.emit.executorch_package import PTEFile, ScalarType, schema, serialize_pte_binary

Plan = Any
"""`schema.ExecutionPlan`, whose values are a union."""


def changed(program: bytes, change: Callable[[Plan], object]) -> bytes:
    """The program with its one plan changed."""
    # Behind the module above, which keeps the rest of ExecuTorch from being imported with it.
    from executorch.exir._serialize._program import deserialize_pte_binary

    read = deserialize_pte_binary(program).program
    read.constant_buffer = [schema.Buffer(storage=b"")]
    read.segments, read.constant_segment = [], schema.SubsegmentOffsets(segment_index=0, offsets=[])
    change(read.execution_plan[0])
    return bytes(serialize_pte_binary(PTEFile(program=read)))


def _tensors(plan: Plan) -> list[Any]:
    return [value.val for value in plan.values if isinstance(value.val, schema.Tensor)]


def _placed(plan: Plan) -> Any:
    """A tensor in the arena with several sizes."""
    return next(t for t in _tensors(plan) if t.allocation_info is not None and len(t.sizes) == 4)


def _tensor(**fields: object) -> Callable[[Plan], object]:
    def change(plan: Plan) -> None:
        for name, value in fields.items():
            setattr(_placed(plan), name, value)

    return change


def _allocation(low: int, high: int = 0, memory: int = 1) -> Callable[[Plan], object]:
    return _tensor(allocation_info=schema.AllocationDetails(memory, low, high))


def _calls(plan: Plan, operator: str = "") -> list[Any]:
    names = [f"profl::{operator}"] if operator else [o.name for o in plan.operators]
    calls = [i.instr_args for i in plan.chains[0].instructions if isinstance(i.instr_args, schema.KernelCall)]
    return [call for call in calls if plan.operators[call.op_index].name in names]


def _argument(operator: str, place: int, value: Any) -> Callable[[Plan], object]:
    """Gives one call of an operator a value of its own in one place."""

    def change(plan: Plan) -> None:
        plan.values.append(schema.EValue(value))
        _calls(plan, operator)[0].args[place] = len(plan.values) - 1

    return change


def _numbers(operator: str, place: int, numbers: list[int]) -> Callable[[Plan], object]:
    """The same for a list of integers."""

    def change(plan: Plan) -> None:
        first = len(plan.values)
        plan.values.extend(schema.EValue(schema.Int(number)) for number in numbers)
        _argument(operator, place, schema.IntList(list(range(first, len(plan.values)))))(plan)

    return change


def _jump(plan: Plan, destination: int) -> None:
    flag = schema.Tensor(
        scalar_type=ScalarType.BOOL,
        storage_offset=0,
        sizes=[1],
        dim_order=[0],
        requires_grad=False,
        layout=0,
        data_buffer_idx=0,
        allocation_info=schema.AllocationDetails(1, 0, 0),
        shape_dynamism=schema.TensorShapeDynamism.STATIC,
    )
    plan.values.append(schema.EValue(flag))
    jump = schema.JumpFalseCall(len(plan.values) - 1, destination)
    plan.chains[0].instructions.insert(0, schema.Instruction(jump))


def _writes_an_input(plan: Plan) -> None:
    call = _calls(plan, "conv2d")[0]
    y, x = plan.values[call.args[-1]].val, plan.values[plan.inputs[0]].val
    x.sizes, x.dim_order, x.scalar_type = y.sizes, y.dim_order, y.scalar_type
    call.args[-1] = plan.inputs[0]


def _names_itself(plan: Plan) -> None:
    lists = [index for index, value in enumerate(plan.values) if isinstance(value.val, schema.IntList)]
    plan.values[lists[0]].val.items = [lists[0], lists[0]]


def _a_number(plan: Plan) -> int:
    return next(index for index, value in enumerate(plan.values) if isinstance(value.val, schema.Int))


def _two_of_one_name(plan: Plan) -> None:
    named = [t for t in _tensors(plan) if t.extra_tensor_info is not None]
    named[1].extra_tensor_info.fully_qualified_name = named[0].extra_tensor_info.fully_qualified_name


HOSTILE: dict[str, tuple[Callable[[Plan], object], str]] = {
    "a negative size": (_tensor(sizes=[2, -4, 32, 32]), "no elements"),
    "a size of zero": (_tensor(sizes=[2, 0, 32, 32]), "no elements"),
    "sizes that overflow": (_tensor(sizes=[2**31 - 1, 2**31 - 1, 2**31 - 1, 4]), "too many elements"),
    "nine dimensions": (_tensor(sizes=[1] * 9, dim_order=list(range(9))), "too many dimensions"),
    "another order of dimensions": (_tensor(dim_order=[0, 2, 3, 1]), "not contiguous"),
    "fewer orders than sizes": (_tensor(dim_order=[0]), "not contiguous"),
    "an offset of the storage": (_tensor(storage_offset=1), "not contiguous"),
    "a shape that may change": (_tensor(shape_dynamism=schema.TensorShapeDynamism.DYNAMIC_BOUND), "not fixed"),
    "a constant": (_tensor(data_buffer_idx=1), "is a constant"),
    "no place": (_tensor(allocation_info=None), "outside of the arena|has no place"),
    "a place behind the arena": (_allocation(1 << 30), "outside of the arena"),
    "a place far behind the arena": (_allocation(0, high=1 << 31), "outside of the arena"),
    "a place in other memory": (_allocation(0, memory=2), "outside of the arena"),
    "a place between elements": (_allocation(2), "not aligned"),
    "an arena of a negative size": (lambda p: p.non_const_buffer_sizes.__setitem__(1, -1), "negative"),
    "an arena larger than any memory": (lambda p: p.non_const_buffer_sizes.__setitem__(1, 1 << 62), "no memory"),
    "an arena too small": (lambda p: p.non_const_buffer_sizes.__setitem__(1, 64), "outside of the arena"),
    "a second arena": (lambda p: p.non_const_buffer_sizes.append(64), "one arena"),
    "an argument behind the values": (lambda p: _calls(p)[0].args.__setitem__(0, 1 << 20), "not there"),
    "a negative argument": (lambda p: _calls(p)[0].args.__setitem__(0, -1), "not there"),
    "an argument less": (lambda p: _calls(p)[0].args.pop(), "arguments and outputs"),
    "an argument more": (lambda p: _calls(p)[0].args.append(0), "arguments and outputs"),
    "arguments that changed places": (lambda p: _calls(p, "conv2d")[0].args.reverse(), "takes float32"),
    "an operator that is not there": (lambda p: setattr(_calls(p)[0], "op_index", 99), "not there"),
    "an unknown operator": (lambda p: setattr(p.operators[0], "name", "profl::exec"), "needs the operator profl::exec"),
    "another library's operator": (lambda p: setattr(p.operators[0], "name", "aten::add"), "needs the operator aten"),
    "a stride of zero": (_numbers("conv2d", 3, [0, 1]), "stride is"),
    "a stride of 2^63": (_numbers("conv2d", 3, [2**63 - 1, 1]), "stride is"),
    "a dilation that leaves the image": (_numbers("conv2d", 5, [9000, 1]), "does not keep to"),
    "groups of zero": (_argument("conv2d", 6, schema.Int(0)), "groups is 0"),
    "groups that do not divide": (_argument("conv2d", 6, schema.Int(3)), "takes|does not keep to"),
    "a number for a tensor": (_argument("conv2d", 1, schema.Int(1)), "weight is 1"),
    "nothing for a weight": (_argument("conv2d", 1, schema.Null()), "weight is none"),
    "a text": (_argument("conv2d", 1, schema.String("x")), "no instruction takes"),
    "a list that names itself": (_names_itself, "names another value"),
    "a jump backward": (lambda p: _jump(p, 0), "jump does not go to the end"),
    "a jump behind the end": (lambda p: _jump(p, 1 << 20), "jump does not go to the end"),
    "an input twice": (lambda p: p.inputs.append(p.inputs[0]), "input is not there, or there twice"),
    "an input that is a number": (lambda p: p.inputs.append(_a_number(p)), "input is no tensor"),
    "an input that is written": (_writes_an_input, "writes an input|takes"),
    "no output": (lambda p: p.outputs.clear(), "puts nothing out"),
    "an output that is not there": (lambda p: p.outputs.__setitem__(0, 1 << 20), "output is no tensor"),
    "no instructions": (lambda p: p.chains[0].instructions.clear(), "no instructions"),
    "two lists of instructions": (lambda p: p.chains.append(p.chains[0]), "one list of instructions"),
    "two tensors of one name": (_two_of_one_name, "one name"),
    "another method": (lambda p: setattr(p, "name", "backward"), "one method 'forward'"),
    "a part for another backend": (
        lambda p: p.delegates.append(
            schema.BackendDelegate("x", schema.BackendDelegateDataReference(schema.DataLocation.INLINE, 0), [])
        ),
        "other backends",
    ),
    "a value that is freed": (
        lambda p: p.chains[0].instructions.append(schema.Instruction(schema.FreeCall(0))),
        "neither a kernel call nor a jump",
    ),
    "a value that is moved": (
        lambda p: p.chains[0].instructions.append(schema.Instruction(schema.MoveCall(0, 1))),
        "neither a kernel call nor a jump",
    ),
}
"""By what is wrong: how the plan is changed, and what the refusal says."""
