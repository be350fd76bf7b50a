"""Read a program's instructions and places from its `.pte`, without executorch: the plan of the arena over a step.

A `.pte` is a flatbuffer of ExecuTorch's schema (`program.fbs`, identifier `ET12`). Only what is needed is read:
values with their sizes and places in the arena, operators, instructions. Every offset is checked against the file,
because a damaged file must be an error of one line.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

from device_profiles.errors import FormatError

_TENSOR = 5  # position in the union KernelTypes
_KERNEL_CALL, _JUMP_FALSE_CALL = 1, 4  # positions in the union InstructionArguments
_MOST_BYTES = 16 << 20
_MOST_REPETITION = 4
"""The lists that are read may have so many times the bytes of the file: tables can be named again and again."""
_ELEMENT_BYTES = {4: 8, 6: 4, 11: 1, 15: 2}  # ScalarType: Long, Float, Bool, BFloat16
JUMP = "jump_unless"
"""Stands for the operator of an instruction that is no kernel call: it may leave out the instructions behind it."""


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """One tensor value. `offset` is its place in the arena, None for inputs that lie outside of it."""

    shape: tuple[int, ...]
    size_bytes: int
    offset: int | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """One instruction: the operator's name and the indices of its arguments and outputs among the values."""

    operator: str
    arguments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """The method `forward` of a `.pte`; `tensors` by the index of the value."""

    tensors: dict[int, PlacedTensor]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arena_bytes: int


def read_program(path: Path) -> ProgramFile:
    """Read `path`; raises FormatError, naming the file, where it is not such a program."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise FormatError(f"{path}: not a program that can be read here ({error})") from None


def _parse(data: bytes) -> ProgramFile:
    if data[4:6] != b"ET":
        raise ValueError("it has no ExecuTorch identifier")
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large for a program")
    root = _Table(data, struct.unpack_from("<I", data, 0)[0], [_MOST_REPETITION * len(data)])
    plan = root.tables(1)[0]
    operators = [operator.text(0) for operator in plan.tables(6)]
    tensors = {}
    for index, value in enumerate(plan.tables(2)):
        if value.number(0, "<B") == _TENSOR:
            tensors[index] = _tensor(value.table(1))
    calls = []
    for chain in plan.tables(5):
        for instruction in chain.tables(2):
            kind, call = instruction.number(0, "<B"), instruction.table(1)
            if kind == _JUMP_FALSE_CALL:
                calls.append(Call(JUMP, (call.number(0, "<i"),)))
                continue
            if kind != _KERNEL_CALL:
                raise ValueError("an instruction is neither a kernel call nor a jump")
            calls.append(Call(operators[call.number(0, "<i")].removeprefix("profl::"), call.numbers(1, "<i")))
    return ProgramFile(
        tensors=tensors,
        calls=tuple(calls),
        inputs=plan.numbers(3, "<i"),
        outputs=plan.numbers(4, "<i"),
        arena_bytes=sum(plan.numbers(8, "<q")),
    )


def _tensor(table: _Table) -> PlacedTensor:
    shape = table.numbers(2, "<i")
    if any(extent < 0 for extent in shape):
        raise ValueError("a tensor has a negative extent")
    offset = None
    if table.has(6):
        place = table.table(6)
        offset = place.number(1, "<I") + (place.number(2, "<I") << 32)
    name = table.table(9).text(1) if table.has(9) else None
    element = _ELEMENT_BYTES[table.number(0, "<b")]
    return PlacedTensor(shape=shape, size_bytes=math.prod(shape) * element, offset=offset, name=name or None)


class _Table:
    """One flatbuffer table: a signed offset back to its vtable, which lists where each field lies."""

    def __init__(self, data: bytes, position: int, left: list[int]) -> None:
        """`left` is one number that all tables of a file share: the bytes of lists that may still be read."""
        self._left = left
        if not 0 <= position <= len(data) - 4:
            raise ValueError("an offset leaves the file")
        self._data = data
        self._position = position
        self._vtable = position - struct.unpack_from("<i", data, position)[0]
        if not 0 <= self._vtable <= len(data) - 4:
            raise ValueError("an offset leaves the file")
        self._length = struct.unpack_from("<H", data, self._vtable)[0]

    def _field(self, slot: int) -> int:
        entry = 4 + 2 * slot
        if entry + 2 > self._length:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._vtable + entry)[0]
        return offset and self._position + offset

    def has(self, slot: int) -> bool:
        return self._field(slot) != 0

    def number(self, slot: int, code: str) -> int:
        at = self._field(slot)
        return int(struct.unpack_from(code, self._data, at)[0]) if at else 0

    def _target(self, slot: int) -> int:
        at = self._field(slot)
        if not at:
            raise ValueError("a field is missing")
        return at + int(struct.unpack_from("<I", self._data, at)[0])

    def table(self, slot: int) -> _Table:
        return _Table(self._data, self._target(slot), self._left)

    def text(self, slot: int) -> str:
        if not self.has(slot):
            return ""
        at = self._target(slot)
        length = struct.unpack_from("<I", self._data, at)[0]
        if at + 4 + length > len(self._data):
            raise ValueError("a text leaves the file")
        return self._data[at + 4 : at + 4 + length].decode()

    def _vector(self, slot: int, item_bytes: int) -> tuple[int, int]:
        if not self.has(slot):
            return 0, 0
        at = self._target(slot)
        count = int(struct.unpack_from("<I", self._data, at)[0])
        if at + 4 + count * item_bytes > len(self._data):
            raise ValueError("a list leaves the file")
        self._left[0] -= count * item_bytes
        if self._left[0] < 0:
            raise ValueError("it names the same bytes again and again")
        return at + 4, count

    def numbers(self, slot: int, code: str) -> tuple[int, ...]:
        item = struct.calcsize(code)
        at, count = self._vector(slot, item)
        return struct.unpack_from(f"<{count}{code[1:]}", self._data, at) if count else ()

    def tables(self, slot: int) -> list[_Table]:
        at, count = self._vector(slot, 4)
        places = [at + 4 * i for i in range(count)]
        return [_Table(self._data, p + struct.unpack_from("<I", self._data, p)[0], self._left) for p in places]
