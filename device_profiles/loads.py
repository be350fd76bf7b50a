"""What a step asks of a processor, counted from its program: arithmetic and bytes by families of kernels."""

from __future__ import annotations

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
    element it is counted as nothing.
    """

    calls: int
    flop: int
    moved_bytes: int

    def __add__(self, other: Load) -> Load:
        return Load(self.calls + other.calls, self.flop + other.flop, self.moved_bytes + other.moved_bytes)

    def __mul__(self, times: int) -> Load:
        return Load(self.calls * times, self.flop * times, self.moved_bytes * times)


NO_LOAD = Load(0, 0, 0)
Loads = dict[Family, Load]
"""Of one step; a family without calls is left out."""


def check_loads(loads: Mapping[Family, Load], where: str) -> None:
    """Raise FormatError, naming `where`, for a count below 0 or above what is exact in JSON."""
    for family, load in loads.items():
        for name, count in msgspec.structs.asdict(load).items():
            if not 0 <= count <= _LARGEST_COUNT:
                raise FormatError(f"{where}: {family}: {name} is {count}, must be 0 to {_LARGEST_COUNT}")


def total(loads: Mapping[Family, Load]) -> Load:
    """The sum over all families."""
    return sum(loads.values(), start=NO_LOAD)
