"""What operators do to complex numbers that are two real tensors.

A transform is a product with the matrix of its cosines and sines, so that its gradient is that of any product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_LONGEST = 4096
"""Elements of the longest transform: a matrix of 64 MB for each part."""


class NoRuleError(Exception):
    """What a call comes down to has no rule here; says what that is."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A complex tensor."""

    real: Any
    imaginary: Any


def is_parts(value: Any) -> bool:
    """Whether a value is a complex tensor."""
    return isinstance(value, Parts)


def computed(target: Any, args: Any, kwargs: Any) -> Any:
    """What the operator `target` gives of tensors and parts; raises NoRuleError where no rule says it of parts."""
    name = str(target).removeprefix("aten.").split(".")[0]
    has_parts = any(isinstance(leaf, (Parts, complex)) for leaf in pytree.tree_leaves((args, kwargs), is_leaf=is_parts))
    if name in _RULES and (has_parts or name not in _OF_ANY):
        return _RULES[name](*args, **kwargs)
    if not has_parts:
        return target(*args, **kwargs)
    if name not in _OF_EACH:
        raise NoRuleError(f"it is made of {target}")
    both = [target(*_side(args, side), **kwargs) for side in ("real", "imaginary")]
    if isinstance(both[0], (tuple, list)):
        return [Parts(*pair) for pair in zip(*both, strict=True)]
    return Parts(*both)


def _side(args: Any, side: str) -> Any:
    return pytree.tree_map(lambda x: getattr(x, side) if is_parts(x) else x, args, is_leaf=is_parts)


def _both(x: Any) -> Parts:
    """A number or tensor as a complex one; its imaginary part is None where there is none."""
    if isinstance(x, Parts):
        return x
    return Parts(x.real, x.imag) if isinstance(x, complex) else Parts(x, None)


def _product(a: Any, b: Any) -> Parts:
    x, y = _both(a), _both(b)
    if y.imaginary is None:
        x, y = y, x
    if x.imaginary is None:
        return Parts(y.real * x.real, y.imaginary * x.real)
    real = x.real * y.real - x.imaginary * y.imaginary
    return Parts(real, x.real * y.imaginary + x.imaginary * y.real)


def _matrix_product(a: Any, b: Any) -> Parts:
    x, y = (Parts(p.real, torch.zeros_like(p.real)) if p.imaginary is None else p for p in (_both(a), _both(b)))
    real = x.real @ y.real - x.imaginary @ y.imaginary
    return Parts(real, x.real @ y.imaginary + x.imaginary @ y.real)


def _exponential(x: Parts) -> Parts:
    size = x.real.exp()
    return Parts(size * x.imaginary.cos(), size * x.imaginary.sin())


def _copied(x: Any, *, dtype: torch.dtype | None = None, **others: Any) -> Any:
    """`_to_copy`: real numbers as complex ones, or complex ones as they are."""
    if dtype is None or not dtype.is_complex:
        if is_parts(x) and dtype is not None:
            raise NoRuleError("real numbers of complex ones")
        return x if dtype is None else torch.ops.aten._to_copy.default(x, dtype=dtype, **others)
    return x if is_parts(x) else Parts(x, torch.zeros_like(x))


def _quotient(a: Any, b: Any) -> Parts:
    x, y = _both(a), _both(b)
    if y.imaginary is None:
        return Parts(x.real / y.real, x.imaginary / y.real)
    size = y.real * y.real + y.imaginary * y.imaginary
    product = _product(x, Parts(y.real, -y.imaginary))
    return Parts(product.real / size, product.imaginary / size)


def _sum(a: Any, b: Any, *, alpha: float = 1, sign: float = 1) -> Parts:
    x, y, factor = _both(a), _both(b), alpha * sign
    zero = torch.zeros_like(x.real if isinstance(x.real, Tensor) else y.real)
    sides = ((p.real, zero if p.imaginary is None else p.imaginary) for p in (x, y))
    first, second = sides
    return Parts(*(p + q * factor for p, q in zip(first, second, strict=True)))


def _size(x: Parts) -> Any:
    """Its gradient is 0 where it is 0."""
    return torch.linalg.vector_norm(torch.stack((x.real, x.imaginary), -1), dim=-1)


def _angles(rows: int, columns: int, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of 2 pi times row times column by length, [rows, columns] each."""
    if length > _LONGEST:
        raise NoRuleError(f"a transform of more than {_LONGEST} elements")
    turns = torch.outer(torch.arange(rows), torch.arange(columns)) % length
    angles = turns.to(torch.float64) * (2 * math.pi / length)
    return angles.cos(), angles.sin()


def _along(x: Tensor, dim: int, matrix: Tensor) -> Tensor:
    return (x.movedim(dim, -1) @ matrix.to(torch.float32)).movedim(-1, dim)


def _factor(length: int, normalization: int) -> float:
    """Of one direction: 0 is none, 1 the root, 2 the whole."""
    return (1.0, 1.0 / math.sqrt(length), 1.0 / length)[normalization]


def _transform(x: Any, dims: Sequence[int], normalization: int, forward: bool) -> Parts:
    """`_fft_c2c`, of real numbers as well."""
    both = _both(x)
    for dim in dims:
        length = both.real.shape[dim]
        cosines, sines = _angles(length, length, length)
        factor = _factor(length, normalization)
        cosines, sines = cosines * factor, sines * (factor if forward else -factor)
        if both.imaginary is None:
            both = Parts(_along(both.real, dim, cosines), _along(both.real, dim, -sines))
            continue
        real = _along(both.real, dim, cosines) + _along(both.imaginary, dim, sines)
        both = Parts(real, _along(both.imaginary, dim, cosines) - _along(both.real, dim, sines))
    return both


def _of_real(x: Tensor, dims: Sequence[int], normalization: int, onesided: bool) -> Parts:
    """`_fft_r2c`: the last dimension first, of which half is kept."""
    length = x.shape[dims[-1]]
    cosines, sines = _angles(length, length // 2 + 1 if onesided else length, length)
    factor = _factor(length, normalization)
    both = Parts(_along(x, dims[-1], cosines * factor), _along(x, dims[-1], sines * -factor))
    return _transform(both, dims[:-1], normalization, True)


def _to_real(x: Parts, dims: Sequence[int], normalization: int, length: int) -> Tensor:
    """`_fft_c2r`: the last dimension at the end, whose other half is the mirrored one."""
    both, dim = _transform(x, dims[:-1], normalization, False), dims[-1]
    kept = length // 2 + 1
    twice = torch.full((kept, 1), 2.0, dtype=torch.float64)
    ends = (torch.arange(kept).view(-1, 1) * 2) % length == 0
    weights = torch.where(ends, 1.0, twice) * _factor(length, normalization)
    cosines, sines = _angles(kept, length, length)
    real, imaginary = (part.narrow(dim, 0, kept) for part in (both.real, both.imaginary))
    return _along(real, dim, cosines * weights) - _along(imaginary, dim, sines * weights)


_RULES: dict[str, Callable[..., Any]] = {
    "mul": _product,
    "div": _quotient,
    "add": _sum,
    "sub": lambda a, b, *, alpha=1: _sum(a, b, alpha=alpha, sign=-1),
    "abs": _size,
    "_conj": lambda x: Parts(x.real, -x.imaginary),
    "conj_physical": lambda x: Parts(x.real, -x.imaginary),
    "resolve_conj": lambda x: x,
    "view_as_real": lambda x: torch.stack((x.real, x.imaginary), -1),
    "view_as_complex": lambda x: Parts(x.select(-1, 0), x.select(-1, 1)),
    "real": lambda x: x.real if isinstance(x, Parts) else x,
    "imag": lambda x: x.imaginary,
    "mm": _matrix_product,
    "bmm": _matrix_product,
    "transpose_": lambda x, a, b: Parts(*(part.transpose(a, b) for part in (x.real, x.imaginary))),
    "exp": _exponential,
    "_to_copy": _copied,
    "complex": Parts,
    "polar": lambda size, angle: Parts(size * angle.cos(), size * angle.sin()),
    "_fft_c2c": _transform,
    "_fft_r2c": _of_real,
    "_fft_c2r": _to_real,
}
_OF_ANY = frozenset({"mul", "div", "add", "sub", "abs", "mm", "bmm", "exp"})
"""Those of them that real numbers have as well."""
_OF_EACH = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "permute", "transpose", "unsqueeze", "squeeze", "expand", "flatten"),
        *("slice", "select", "clone", "contiguous", "alias", "detach", "roll", "flip", "repeat", "constant_pad_nd"),
        *("sum", "mean", "neg", "cat", "stack", "index", "split", "split_with_sizes", "chunk", "unbind", "narrow"),
    }
)
"""Operators that do the same to both parts."""
