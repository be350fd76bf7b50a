"""When two results are the same but for rounding, and where in a model a difference begins.

A tensor is the same within a relative error in the Euclidean norm. What is not is judged against float64: it may be as
far off as PyTorch's own float32 is, times a margin, so that sums which cancel and values next to a ReLU's zero pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.verify.reference import Step

_SAME = 1e-2
"""Values next to the zero of a ReLU fall on its other side by rounding, in a deep network some tenths of 1 %."""
_SAME_LOSS = 1e-4
_SAME_OUTPUT = 1e-3
_MARGIN = 16.0
_MOST = 0.05
"""A tensor that is further off than this, and further than PyTorch's own float32 by more than `_AS_NEAR`, is another
one."""
_AS_NEAR = 2.0
"""How much further off than PyTorch's float32 a tensor may always be."""
_NOTHING = 4e-6
"""A gradient of less than this share of the largest, a value, is rounding of sums that cancel, as that of the bias of
a convolution before a BatchNorm."""


def unlike(found: Tensor, expected: Tensor) -> bool:
    """Whether two activations differ by more than rounding."""
    return found.shape != expected.shape or not _near(found, expected, _SAME_OUTPUT * _norm(expected) + 1e-6)


def _near(found: Tensor, expected: Tensor, most: float) -> bool:
    return _norm(found.double() - expected.double()) <= most  # not where either has a NaN


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().norm())


class Verdict:
    """Compares results with those of `reference`; `double` makes the same in float64, where it is asked for."""

    def __init__(self, reference: Step, double: Callable[[], Step | None]) -> None:
        self._reference = reference
        self._make_double = double
        self._double: Step | None = None
        self._asked = False
        self.share = ""
        self.good: frozenset[str] = frozenset()

    def loss(self, found: Tensor) -> bool:
        """Whether the loss is another one."""
        expected = torch.tensor(self._reference.loss)
        return self._differs(
            found, expected, lambda step: torch.tensor(step.loss, dtype=torch.float64), 0.0, _SAME_LOSS
        )

    def gradient(self, found: Mapping[str, Tensor], order: Iterable[str], agreed: set[str]) -> str | None:
        """The first parameter in `order` whose gradient is another one and which `agreed` does not name; `good` are
        those before it. `agreed` gains all whose gradients are right."""
        expected = self._reference.gradients
        sizes = [float(g.square().mean().sqrt()) for g in expected.values() if g.numel()]
        floor = _NOTHING * max(sizes, default=0.0)
        good: set[str] = set()
        first, share = None, ""
        for name in order:
            if name not in found:
                continue
            wanted = expected.get(name, torch.zeros_like(found[name]))
            least = floor * wanted.numel() ** 0.5
            if not self._differs(found[name], wanted, _gradient_of(name), least):
                agreed.add(name)
            elif first is None and name not in agreed:
                first, share, self.good = name, self.share, frozenset(good)
            good.add(name)
        if first is not None:
            self.share = share
            return first
        missing = sorted(set(expected) - set(found))
        for name in missing:
            if bool(expected[name].any()):
                self.share, self.good = "all of it", frozenset(good)
                return name
        return None

    def statistic(self, found: Mapping[str, Tensor]) -> str | None:
        """The first running statistic that is another one after the step."""
        for name, value in found.items():
            if self._differs(value, self._reference.statistics[name], _statistic_of(name), 1e-6):
                return name
        return None

    def _differs(
        self,
        found: Tensor,
        expected: Tensor,
        exact: Callable[[Step], Tensor | None],
        least: float,
        same: float = _SAME,
    ) -> bool:
        if _near(found, expected, same * _norm(expected) + least):
            return False
        size = _norm(expected)
        self.share = f"{_norm(found.double() - expected.double()) / size:.2g} of it" if size else "all of it"
        if not self._asked:
            self._asked, self._double = True, self._make_double()
        precise = None if self._double is None else exact(self._double)
        if precise is None:
            return True
        own = _norm(expected.double() - precise)
        allowed = max(min(_MARGIN * own, _MOST * _norm(precise) + 1e3 * least), _AS_NEAR * own)
        return not _near(found, precise, max(allowed, same * _norm(precise) + least))


def _gradient_of(name: str) -> Callable[[Step], Tensor | None]:
    return lambda step: step.gradients.get(name)


def _statistic_of(name: str) -> Callable[[Step], Tensor | None]:
    return lambda step: step.statistics[name]


def behind(layers: list[Layer], name: str, good: frozenset[str]) -> str:
    """Between which modules the difference of a gradient begins that is the first one, from the model's end on."""
    start = max((i for i, layer in enumerate(layers) if name in layer.tensors), default=0)
    end = next(
        (i for i, layer in enumerate(layers) if i > start and not good.isdisjoint(layer.tensors)), len(layers) - 1
    )
    first, last = (layers[i].module or layers[i].output for i in (start, end))
    return f"from module '{first}' on" if first == last else f"between modules '{first}' and '{last}'"
