"""What lives in the arena at each instruction, read from the program itself: the plan of one step over time."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from device_profiles.manifest import Program
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.timeline import PlanTimeline
from profiler.measure.program_file import Call, PlacedTensor, ProgramFile

_UPDATES = tuple(OPTIMIZERS)
_LOSSES = ("cross_entropy", "mean_squared_error")
_MULTIPLICATIONS_PER_BYTE = 4
"""About the time to move one byte, in multiply-additions; only the axis of a picture depends on it."""

_Part = str
_PARTS: tuple[_Part, ...] = ("parameters", "optimizer_state", "activations", "gradients", "temporaries")
_STATE_PARTS: dict[str, _Part] = {"optimizer_state": "optimizer_state", "gradient_sum": "gradients"}
"""Of state that starts as zero pages; all other state counts as parameters."""


@dataclass(slots=True)
class _Storage:
    """Bytes of the arena that one or more values share one after the other, alive from `first` to `last`.

    `touched` is the instruction that uses them first: before it an optimizer's state and sums of gradients are zero
    pages that do not exist.
    """

    offset: int
    size: int
    first: int
    last: int
    touched: int
    part: _Part = "temporaries"


def plan_timeline(file: ProgramFile, program: Program) -> PlanTimeline | None:
    """The timeline of a program; None for one without instructions. `program` tells what its named buffers are."""
    if not file.calls:
        return None
    uses = _uses(file)
    state = _state(file, program, uses)
    storages = [*state, *_passing(file, program, uses, {storage.offset for storage in state})]
    _name_parts(storages, file)
    storages += _read_anew(program)
    columns: dict[_Part, list[int]] = {part: [0] * len(file.calls) for part in _PARTS}
    for storage in storages:
        for instruction in range(storage.first, storage.last + 1):
            columns[storage.part][instruction] += storage.size
    return PlanTimeline(
        work=tuple(_work_shares(file)),
        parameters_bytes=tuple(columns["parameters"]),
        optimizer_state_bytes=tuple(columns["optimizer_state"]),
        activations_bytes=tuple(columns["activations"]),
        gradients_bytes=tuple(columns["gradients"]),
        temporaries_bytes=tuple(columns["temporaries"]),
        touched_bytes=tuple(_touched(storages, len(file.calls))),
    )


def _uses(file: ProgramFile) -> dict[int, tuple[int, int]]:
    """First and last instruction that takes each value; an output is read after the last."""
    uses: dict[int, tuple[int, int]] = {}
    for instruction, call in enumerate(file.calls):
        for index in call.arguments:
            if index in file.tensors:
                first, _ = uses.get(index, (instruction, instruction))
                uses[index] = (first, instruction)
    for index in file.outputs:
        if index in uses:
            uses[index] = (uses[index][0], len(file.calls) - 1)
    return uses


def _state(file: ProgramFile, program: Program, uses: Mapping[int, tuple[int, int]]) -> list[_Storage]:
    """Tensors that live from step to step; running statistics count as parameters, as in the memory plan.

    One that has several names is one storage.
    """
    roles = {tensor.name: tensor.role for tensor in program.tensors}
    end = len(file.calls) - 1
    state: dict[int, _Storage] = {}
    for index, tensor in file.tensors.items():
        if tensor.name not in roles or tensor.offset is None:
            continue
        part = _STATE_PARTS.get(roles[tensor.name], "parameters")
        touched = 0 if part == "parameters" else uses.get(index, (end, end))[0]
        same = state.get(tensor.offset)
        if same is not None and same.part == part:
            same.size, same.touched = max(same.size, tensor.size_bytes), min(same.touched, touched)
            continue
        state[tensor.offset] = _Storage(
            offset=tensor.offset, size=tensor.size_bytes, first=0, last=end, touched=touched, part=part
        )
    return list(state.values())


def _passing(
    file: ProgramFile, program: Program, uses: Mapping[int, tuple[int, int]], kept: Collection[int]
) -> list[_Storage]:
    """All other storages. A value takes over the bytes of one that dies at the instruction which makes it.

    The batch of examples is written before the first instruction.
    """
    given = {value.name for value in program.inputs}
    spans = _with_parts(file, dict(uses), given)
    storages: dict[int, list[_Storage]] = {}
    for index, (first, last) in sorted(spans.items(), key=lambda item: (item[1], item[0])):
        tensor = file.tensors[index]
        if tensor.offset is None or tensor.offset in kept:
            continue
        earlier = storages.setdefault(tensor.offset, [])
        if earlier and earlier[-1].last >= first:
            earlier[-1].last = max(earlier[-1].last, last)
            earlier[-1].size = max(earlier[-1].size, tensor.size_bytes)
        else:
            earlier.append(
                _Storage(offset=tensor.offset, size=tensor.size_bytes, first=first, last=last, touched=first)
            )
    return [storage for listed in storages.values() for storage in listed]


def _read_anew(program: Program) -> list[_Storage]:
    """Frozen tensors, each at the instructions that it is read for."""
    return [
        _Storage(offset=value.arena_offset, size=value.size_bytes, first=at, last=at, touched=at)
        for value in program.inputs
        if value.arena_offset is not None
        for at in value.read_before
    ]


def _with_parts(
    file: ProgramFile, spans: dict[int, tuple[int, int]], given: Collection[str]
) -> dict[int, tuple[int, int]]:
    """Lifetimes of whole tensors that operators see in parts, a few examples at a time; the parts are left out.

    The batch of examples is there from the start until its last part was read; another tensor that its parts were
    written to is there from the first of them.
    """
    end = len(file.calls) - 1
    for index in [*file.tensors]:
        whole = file.tensors[index]
        if whole.offset is None or len(whole.shape) < 2:
            continue
        is_given, is_output = whole.name in given, index in file.outputs
        if index not in spans and not is_given and not is_output:
            continue
        first, last = spans.get(index, (0, 0) if is_given else (end, end))
        parts = [
            part for part in spans if _is_part(file.tensors[part], whole) and (is_given or spans[part][1] <= first)
        ]
        if is_given:
            first, last = 0, max([last, *(spans[part][1] for part in parts)])
        elif _tile(parts, file, whole):
            first = min(spans[part][0] for part in parts)
        else:
            parts = []
        spans[index] = (first, last)
        for part in parts:
            del spans[part]
    return spans


def _is_part(part: PlacedTensor, whole: PlacedTensor) -> bool:
    if part.offset is None or whole.offset is None or part.name is not None:
        return False
    inside = whole.offset <= part.offset and part.offset + part.size_bytes <= whole.offset + whole.size_bytes
    return inside and part.size_bytes < whole.size_bytes and part.shape[1:] == whole.shape[1:]


def _tile(parts: list[int], file: ProgramFile, whole: PlacedTensor) -> bool:
    """Whether the parts cover the whole exactly."""
    sizes = {file.tensors[part].offset: file.tensors[part].size_bytes for part in parts}
    return sum(sizes.values()) == whole.size_bytes


def _name_parts(storages: list[_Storage], file: ProgramFile) -> None:
    loss = next((i for i, call in enumerate(file.calls) if call.operator in _LOSSES), None)
    read_by_updates = {
        (instruction, tensor.offset)
        for instruction, call in enumerate(file.calls)
        if call.operator.startswith(_UPDATES)
        for tensor in _tensors(call, file.tensors)
    }
    for storage in storages:
        if storage.part != "temporaries":
            continue
        if any((at, storage.offset) in read_by_updates for at in range(storage.first, storage.last + 1)):
            storage.part = "gradients"
        elif loss is not None and storage.first < loss < storage.last:
            storage.part = "activations"


def _touched(storages: list[_Storage], count: int) -> list[int]:
    """Bytes of the arena that were in use up to each instruction: the union of the storages begun so far."""
    begun = sorted(storages, key=lambda storage: storage.touched)
    touched: list[int] = []
    taken: list[tuple[int, int]] = []
    position = 0
    for instruction in range(count):
        start = position
        while position < len(begun) and begun[position].touched <= instruction:
            taken.append((begun[position].offset, begun[position].offset + begun[position].size))
            position += 1
        if position > start or not touched:
            taken = _merged(taken)
        touched.append(sum(end - begin for begin, end in taken))
    return touched


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _work_shares(file: ProgramFile) -> Iterable[float]:
    work = [_work(call, file.tensors) for call in file.calls]
    total, before = sum(work) or 1, 0
    for amount in work:
        yield round(min(before / total, 1.0), 5)
        before += amount


def _work(call: Call, tensors: Mapping[int, PlacedTensor]) -> int:
    """Multiply-additions of convolutions and linear layers, and the bytes of every tensor an operator takes."""
    taken = _tensors(call, tensors)
    moved = sum(tensor.size_bytes for tensor in taken)
    if not call.operator.startswith(("conv2d", "linear")) or len(taken) < 3:
        return moved * _MULTIPLICATIONS_PER_BYTE
    weight, image = taken[1], taken[-1]
    if call.operator.endswith("weight_grad"):
        weight, image = taken[-1], taken[0]
    elif call.operator.endswith("input_grad"):
        image = taken[0]
    positions = image.shape[:1] + image.shape[2:]
    return math.prod(weight.shape) * math.prod(positions) + moved * _MULTIPLICATIONS_PER_BYTE


def _tensors(call: Call, tensors: Mapping[int, PlacedTensor]) -> list[PlacedTensor]:
    return [tensors[index] for index in call.arguments if index in tensors]
