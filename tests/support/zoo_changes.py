"""What the models of `zoo` have in the middle, and what is done to a network when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Reverse(torch.autograd.Function):
    """Gradient reversal."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The input."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The other way."""
        return -gradient


class Clip(torch.autograd.Function):
    """Gradients that are clipped: nothing to be seen where they are small."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The input."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Within one."""
        return gradient.clamp(-1.0, 1.0)


class Swish(torch.autograd.Function):
    """A backward of its own that is the derivative all the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """x * sigmoid(x)."""
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Its derivative."""
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return gradient * (s * (1 + x * (1 - s)))


class StillNorm(nn.BatchNorm2d):
    """A BatchNorm that stays in inference mode."""

    def train(self, mode: bool = True) -> Any:
        """Never."""
        return super().train(False)


def with_buffer(name: str, value: Callable[[], Tensor], *, persistent: bool = True) -> Callable[[Any], None]:
    return lambda net: net.register_buffer(name, value(), persistent=persistent)


def several(*steps: Callable[[Any], None]) -> Callable[[Any], None]:
    def make(net: Any) -> None:
        for step in steps:
            step(net)

    return make


def zeros() -> Tensor:
    return torch.zeros(6)


def with_scale_and_shift(net: Any) -> None:
    net.g, net.b = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))


def with_attribute(name: str, value: Callable[[], Any]) -> Callable[[Any], None]:
    return lambda net: setattr(net, name, value())


def seeded(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.5


def counting(net: Any, x: Tensor) -> Tensor:
    net.k += 1.0
    return x * net.k


def counting_in_python(net: Any, x: Tensor) -> Tensor:
    net.k = net.k + 1
    return x * (0.1 * net.k)


def without_gradient(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.relu()


def hooked(net: Any, x: Tensor) -> Tensor:
    if x.requires_grad:
        x.register_hook(lambda gradient: -gradient)
    return x.relu()


def with_hook(net: Any) -> None:
    net.a.weight.register_hook(lambda gradient: gradient * 0.0)


def with_module_hook(net: Any) -> None:
    net.a.register_full_backward_hook(lambda module, before, after: None)


def with_norm(make: Callable[[], nn.Module]) -> Callable[[Any], None]:
    return lambda net: setattr(net, "norm", make())


def batch_norm_in_eval() -> nn.Module:
    return nn.BatchNorm2d(6).eval()


def moved_statistics(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        norm = make()
        norm.running_mean.copy_(seeded(6)())
        norm.running_var.copy_(2 * seeded(6)())
        return norm

    return made


def with_frozen_weight(net: Any) -> None:
    net.a.weight.requires_grad_(False)


def with_all_frozen(net: Any) -> None:
    net.requires_grad_(False)


def with_second_name(net: Any) -> None:
    net.z = nn.Sequential(net.a, nn.ReLU())


def with_second_norm(net: Any) -> None:
    net.z = nn.ModuleList([net.norm])


def turning() -> nn.Module:
    return nn.ConvTranspose2d(6, 6, 2, stride=2)


def in_eval(change: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda net, x: x.relu() if net.training else change(x)


def with_neighbours(net: Any, x: Tensor) -> Tensor:
    return x + x.view(2, -1, *x.shape[1:]).transpose(0, 1).reshape(x.shape)
