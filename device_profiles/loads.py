"""What a step asks of a processor, counted from its program: arithmetic and bytes by families of kernels."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Literal

import msgspec

from device_profiles.errors import FormatError

_LARGEST_COUNT = 1 << 53

Family = Literal["convolution", "winograd", "pointwise", "depthwise", "linear", "attention", "elements"]
"""Kernels that take about the same time for the same arithmetic and bytes.

`winograd` are convolutions of 3x3 taps that need fewer multiplications than are counted, `pointwise` those of one tap,
`elements` all that multiplies no matrices, updates of parameters included.
"""


class Load(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Calls of kernels, their multiplications and additions (each one), and the bytes of all tensors they take.

    Arithmetic is that of direct products, whatever the kernel does, with channels filled up to whole lanes; element by
    element it is counted as nothing. `reference_ns` is how long all of it takes on a reference core, in nanoseconds;
    0 in what earlier releases wrote. `weights_ns` is the part of it that goes over weights once, whatever the batch:
    they are packed, transformed and updated at the speed of a memory.
    """

    calls: int
    flop: int
    moved_bytes: int
    reference_ns: int = 0
    weights_ns: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(*map(operator.add, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))

    def __mul__(self, times: int) -> Load:
        return Load(*(count * times for count in msgspec.structs.astuple(self)))


NO_LOAD = Load(0, 0, 0)
Loads = dict[Family, Load]
"""Of one step; a family without calls is left out."""


def same_work(one: Mapping[Family, Load], other: Mapping[Family, Load]) -> bool:
    """Whether two programs do the same, whatever releases say that it takes on a reference core."""
    return {f: msgspec.structs.astuple(load)[:3] for f, load in one.items()} == {
        f: msgspec.structs.astuple(load)[:3] for f, load in other.items()
    }


def check_loads(loads: Mapping[Family, Load], where: str) -> None:
    """Raise FormatError, naming `where`, for a count below 0 or above what is exact in JSON."""
    for family, load in loads.items():
        for name, count in msgspec.structs.asdict(load).items():
            if not 0 <= count <= _LARGEST_COUNT:
                raise FormatError(f"{where}: {family}: {name} is {count}, must be 0 to {_LARGEST_COUNT}")


def total(loads: Mapping[Family, Load]) -> Load:
    """The sum over all families."""
    return sum(loads.values(), start=NO_LOAD)
