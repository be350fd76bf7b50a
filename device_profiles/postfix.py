"""The instructions of the expressions that programs compute element by element, in postfix order.

Part of the programs' format: `csrc/operators/postfix.h` has the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

DEPTH, LENGTH, OPERANDS = 8, 64, 3
"""Values that wait at the most, instructions, and tensors."""
_BITS = 8

NAMES = (
    "operand",
    "number",
    "add",
    "subtract",
    "multiply",
    "divide",
    "greater",
    "equal",
    "larger",
    "smaller",
    "power",
    "angle",
    "choose",
    "negate",
    "absolute",
    "exponential",
    "exponential_less_one",
    "logarithm",
    "logarithm_of_one_more",
    "square_root",
    "sine",
    "cosine",
    "tangent",
    "arcsine",
    "arccosine",
    "arctangent",
    "hyperbolic_sine",
    "hyperbolic_cosine",
    "hyperbolic_tangent",
    "area_sine",
    "area_cosine",
    "area_tangent",
    "error",
    "error_left",
    "floor",
    "round",
)
_CHOOSE = NAMES.index("choose")


def word(name: str, value: float = 0) -> int:
    """An instruction: `value` is an operand's place or a number, and 0 for all others."""
    if name == "number":
        return NAMES.index(name) | int.from_bytes(struct.pack("<f", value), "little") << _BITS
    return NAMES.index(name) | int(value) << _BITS


def taken(instruction: int) -> int:
    """How many values an instruction takes from the stack, on which it puts one."""
    if instruction <= 1:
        return 0
    if instruction == _CHOOSE:
        return 3
    return 2 if instruction < _CHOOSE else 1


def is_expression(code: Sequence[int], operands: Sequence[bool]) -> bool:
    """Whether the instructions leave one value and read none but the operands that are there."""
    depth = 0
    if not 1 <= len(code) <= LENGTH:
        return False
    for number in code:
        instruction, place = number & ((1 << _BITS) - 1), number >> _BITS
        if instruction >= len(NAMES) or depth < taken(instruction):
            return False
        if instruction == 0 and not (place < len(operands) and operands[place]):
            return False
        if instruction > 1 and place != 0:
            return False
        depth += 1 - taken(instruction)
        if depth > DEPTH:
            return False
    return depth == 1
