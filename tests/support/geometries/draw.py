"""Random calls of a kernel: their arguments, and what they have to give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Item = TypeVar("Item")

ROUNDING = 2.0**-23
"""Between two neighbouring float32 of about 1."""


@dataclass(frozen=True)
class Result:
    """One output: `dtype` is how it lies in memory, `allowed` the largest absolute error, of each element or of all."""

    expected: Array
    allowed: Array | float
    dtype: type = np.float32


@dataclass(frozen=True)
class Call:
    """`profl::<operator>.out` with its arguments in the order of the stack.

    Outputs that are absent are None; one result named several times is one tensor.
    """

    operator: str
    arguments: list[Any]
    results: list[Result | None]

    def describe(self) -> str:
        """Shapes and numbers, in one line."""
        return f"{self.operator}({', '.join(_described(a) for a in self.arguments)}) -> " + ", ".join(
            "none" if result is None else str(list(result.expected.shape)) for result in self.results
        )


def _described(argument: Any) -> str:
    if isinstance(argument, np.ndarray):
        return f"{argument.dtype}{list(argument.shape)}"
    return "none" if argument is None else str(argument)


class Draw:
    """Random numbers, shapes and values that follow from a seed."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.random = np.random.default_rng(seed)

    def chance(self, probability: float) -> bool:
        """True in `probability` of all draws."""
        return bool(self.random.random() < probability)

    def whole(self, first: int, last: int) -> int:
        """A whole number of [first, last]."""
        return int(self.random.integers(first, last + 1))

    def number(self, low: float, high: float) -> float:
        """A number of [low, high) that float32 holds."""
        return float(np.float32(self.random.uniform(low, high)))

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.whole(0, len(items) - 1)]

    def extent(self, most: int) -> int:
        """1 often, small mostly, `most` at the most."""
        if self.chance(0.25):
            return 1
        return self.whole(1, most if self.chance(0.3) else max(1, min(most, 6)))

    def shape(self, least: int = 1, most: int = 5, elements: int = 4000) -> tuple[int, ...]:
        """Some dimensions of few elements together; now and then one of many, which is cut into pieces."""
        if self.chance(0.02):
            return tuple([1] * (self.whole(least, most) - 1) + [self.whole(32_760, 33_000)])
        while True:
            shape = tuple(self.extent(40) for _ in range(self.whole(least, most)))
            if int(np.prod(shape)) <= elements:
                return shape

    def values(self, *shape: int) -> NDArray[np.float32]:
        """Normal numbers."""
        return self.random.standard_normal(shape, np.float32)

    def maybe(self, *shape: int, probability: float = 0.6) -> NDArray[np.float32] | None:
        """The same, or none."""
        return self.values(*shape) if self.chance(probability) else None


def double(array: Array) -> torch.Tensor:
    """In float64."""
    return torch.from_numpy(np.ascontiguousarray(array)).double()


def optional(array: Array | None) -> torch.Tensor | None:
    """In float64, where there is one."""
    return None if array is None else double(array)


def leaf(array: Array) -> torch.Tensor:
    """In float64, with a gradient."""
    return double(array).requires_grad_()


def exact(expected: Array | torch.Tensor, dtype: type = np.float32) -> Result:
    """What must be met to the bit."""
    return Result(_array(expected), 0.0, dtype)


def near(expected: torch.Tensor, scale: Array | torch.Tensor | float, tolerance: float = 1e-6) -> Result:
    """What may be off by a share of `scale`: of sums, what their terms are together without their signs."""
    size = np.abs(_array(scale) if isinstance(scale, torch.Tensor) else scale)
    return Result(_array(expected), tolerance * size)


def largest(tensor: torch.Tensor | Array) -> float:
    """The largest absolute value; 0 of none."""
    return float(np.abs(_array(tensor)).max(initial=0.0))


def perturbed(
    draw: Draw, reference: Callable[..., Sequence[torch.Tensor]], inputs: Sequence[Array | None], rounds: float = 16.0
) -> list[Result]:
    """Results of a reference, which may be off by what they are where each input was rounded a few times more.

    For functions that are sensitive to their inputs in places, such as a normalisation of two values.
    """
    exactly = reference(*map(optional, inputs))
    moved = [
        None if array is None else array * (1.0 + ROUNDING * draw.random.choice((-1.0, 1.0), array.shape))
        for array in inputs
    ]
    elsewhere = reference(*map(optional, moved))
    return [
        Result(_array(one), rounds * largest(one - other) + 2e-6 * largest(one))
        for one, other in zip(exactly, elsewhere, strict=True)
    ]


def _array(tensor: torch.Tensor | Array | float) -> Array:
    return tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
