"""Models as users write them, for `--model tests.support.zoo:<name>`: each with what is to become of it.

`ZOO` says of each whether it trains as in PyTorch, or what the refusal says.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE, SEQUENCE = (3, 8, 8), (5, 6)


class Net(nn.Module):
    """A convolution, `middle` of its output and the module, and a linear layer on the mean: [N, 3, H, W] -> [N, 10]."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor], make: Callable[[Any], None] = lambda net: None) -> None:
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 10)
        self.middle = middle
        make(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.fc(self.middle(self, self.a(x)).mean((2, 3)))


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


class SequenceFirst(nn.Module):
    """A transformer layer whose first dimension is the sequence: [N, T, 6] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.fc = nn.Linear(6, 12), nn.Linear(12, 10)
        self.layer = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean over the sequence."""
        return self.fc(self.layer(self.e(x).transpose(0, 1)).mean(0))


class Rotary(nn.Module):
    """Attention with a factor on queries and keys, whose output is where the head begins: [N, 5, 6] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.fc = nn.Linear(6, 12), nn.Linear(12, 10)
        self.register_buffer("c", torch.rand(5, 4, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean token."""
        x = self.e(x).view(x.shape[0], 5, 3, 4).transpose(1, 2)
        q = x * self.c
        x = functional.scaled_dot_product_attention(q, q, x).transpose(1, 2)
        return self.fc(x.reshape(x.shape[0], 5, 12).mean(1))


class PerToken(nn.Module):
    """Tokens of all examples in one dimension, which are taken apart again before the last layer's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.h, self.fc = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, 10]."""
        n, t, _ = x.shape
        return self.fc(self.h(self.e(x).relu().reshape(n * t, 12)).relu().view(n, t, 12).mean(1))


def _with(name: str, value: Callable[[], Tensor], *, persistent: bool = True) -> Callable[[Any], None]:
    return lambda net: net.register_buffer(name, value(), persistent=persistent)


def _several(*steps: Callable[[Any], None]) -> Callable[[Any], None]:
    def make(net: Any) -> None:
        for step in steps:
            step(net)

    return make


def _zeros() -> Tensor:
    return torch.zeros(6)


def _parameters(net: Any) -> None:
    net.g, net.b = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))


def _plain(name: str, value: Callable[[], Any]) -> Callable[[Any], None]:
    return lambda net: setattr(net, name, value())


def _seeded(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.5


def _counting(net: Any, x: Tensor) -> Tensor:
    net.k += 1.0
    return x * net.k


def _counting_in_python(net: Any, x: Tensor) -> Tensor:
    net.k = net.k + 1
    return x * (0.1 * net.k)


def _without_gradient(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.relu()


def _hooked(net: Any, x: Tensor) -> Tensor:
    if x.requires_grad:
        x.register_hook(lambda gradient: -gradient)
    return x.relu()


def _with_hook(net: Any) -> None:
    net.a.weight.register_hook(lambda gradient: gradient * 0.0)


def _with_module_hook(net: Any) -> None:
    net.a.register_full_backward_hook(lambda module, before, after: None)


def _norm(make: Callable[[], nn.Module]) -> Callable[[Any], None]:
    return lambda net: setattr(net, "norm", make())


def _still() -> nn.Module:
    return nn.BatchNorm2d(6).eval()


def _moved_statistics(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        norm = make()
        norm.running_mean.copy_(_seeded(6)())
        norm.running_var.copy_(2 * _seeded(6)())
        return norm

    return made


def _frozen(net: Any) -> None:
    net.a.weight.requires_grad_(False)


def _all_frozen(net: Any) -> None:
    net.requires_grad_(False)


def _second_name(net: Any) -> None:
    net.z = nn.Sequential(net.a, nn.ReLU())


def _second_norm(net: Any) -> None:
    net.z = nn.ModuleList([net.norm])


def _turning() -> nn.Module:
    return nn.ConvTranspose2d(6, 6, 2, stride=2)


def _in_eval(change: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda net, x: x.relu() if net.training else change(x)


def _neighbours(net: Any, x: Tensor) -> Tensor:
    return x + x.view(2, -1, *x.shape[1:]).transpose(0, 1).reshape(x.shape)


class Ending(nn.Module):
    """A network that ends with `last` of its logits."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.fc, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 10), last

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 10]."""
        return self.last(self.fc(self.a(x).relu().mean((2, 3))))


def _failing() -> nn.Module:
    raise ValueError("no weights file\nsecond line")


def _leaving() -> nn.Module:
    raise SystemExit(3)


def _not_a_number() -> nn.Module:
    net = Net(lambda net, x: x.relu())
    with torch.no_grad():
        net.a.weight[0, 0, 0, 0] = torch.nan
    return net


def _turned() -> nn.Module:
    net = Net(lambda net, x: x.relu())
    net.fc.weight = nn.Parameter(torch.randn(6, 10).t())
    return net


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, its inputs, what of it must stay as it is, and what a refusal says where it is refused.

    `drops`: it has dropout.
    """

    make: Callable[[], Any]
    input_shape: tuple[int, ...] = IMAGE
    still: tuple[str, ...] = ()
    refusal: str | None = None
    drops: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def _case(
    middle: Callable[[Any, Tensor], Tensor] = lambda net, x: x.relu(),
    make: Callable[[Any], None] = lambda net: None,
    **about: Any,
) -> Case:
    return Case(make=lambda: Net(middle, make), **about)


ZOO: dict[str, Case] = {
    "reverse": _case(lambda net, x: Reverse.apply(x), refusal="autograd.Function 'Reverse' is not the derivative"),
    "clip": _case(lambda net, x: Clip.apply(x), refusal="autograd.Function 'Clip' is not the derivative"),
    "swish": _case(lambda net, x: Swish.apply(x)),
    "tensor_hook": _case(_hooked, refusal="registers a hook on a tensor's gradient"),
    "parameter_hook": _case(make=_with_hook, refusal="parameter 'a.weight' has a hook"),
    "module_hook": _case(make=_with_module_hook, refusal="module 'a' has a backward hook"),
    "detached": _case(lambda net, x: x.relu() + 0.5 * x.detach().tanh()),
    "stopped": _case(lambda net, x: x.detach().relu()),
    "no_grad": _case(_without_gradient, refusal="switches gradients off"),
    "still_norm": _case(lambda net, x: net.norm(x).relu(), _norm(_moved_statistics(lambda: StillNorm(6)))),
    "norm_left_in_eval": _case(
        lambda net, x: net.norm(x).relu(),
        _norm(_moved_statistics(_still)),
        still=("norm.running_mean", "norm.running_var"),
    ),
    "norm_by_function": _case(
        lambda net, x: functional.batch_norm(x, net.mean, net.var, net.g, net.b, False).relu(),
        _several(_with("mean", _seeded(6)), _with("var", _seeded(6)), _parameters),
        still=("mean", "var"),
    ),
    "norm_without_affine": _case(
        lambda net, x: net.norm(x).relu() + x, _norm(_moved_statistics(lambda: nn.BatchNorm2d(6, affine=False).eval()))
    ),
    "norm_frozen_whole": _case(
        lambda net, x: (net.norm(x) + x).relu(),
        _norm(_moved_statistics(lambda: nn.BatchNorm2d(6).eval().requires_grad_(False))),
        still=("norm.weight", "norm.bias", "norm.running_mean"),
    ),
    "norm_affine_frozen": _case(
        lambda net, x: net.norm(x).relu(),
        _norm(lambda: nn.BatchNorm2d(6).requires_grad_(False)),
        still=("norm.weight", "norm.bias"),
    ),
    "blur": _case(
        lambda net, x: functional.conv2d(x, net.k, padding=1, groups=6).relu(),
        _with("k", _seeded(6, 1, 3, 3)),
        still=("k",),
    ),
    "blur_not_persistent": _case(
        lambda net, x: functional.conv2d(x, net.k, padding=1, groups=6).relu(),
        _with("k", _seeded(6, 1, 3, 3), persistent=False),
    ),
    "blur_transposed": _case(
        lambda net, x: functional.conv_transpose2d(x, net.k, net.bias, stride=2).relu(),
        _several(_with("k", _seeded(6, 6, 2, 2)), _with("bias", _seeded(6))),
        still=("k", "bias"),
    ),
    "projection": _case(
        lambda net, x: functional.linear(x, net.k, net.shift).relu(),
        _several(_with("k", _seeded(6, 6)), _with("shift", _seeded(6))),
        still=("k", "shift"),
    ),
    "scale_of_layer_norm": _case(
        lambda net, x: functional.layer_norm(x, (6,), net.k), _with("k", _seeded(6)), still=("k",)
    ),
    "scale_of_group_norm": _case(
        lambda net, x: functional.group_norm(x, 2, net.k, net.k), _with("k", _seeded(6)), still=("k",)
    ),
    "scale_of_batch_norm": _case(
        lambda net, x: functional.batch_norm(x, net.mean, net.var, net.k, net.k, net.training).relu(),
        _several(_with("mean", _zeros), _with("var", _seeded(6)), _with("k", _seeded(6))),
        still=("k",),
    ),
    "statistics_of_the_batch": _case(
        lambda net, x: functional.batch_norm(x, net.mean, net.var, None, None, True).relu(),
        _several(_with("mean", _zeros), _with("var", _seeded(6))),
        refusal=r"in eval\(\) mode the model's result for one example follows from others",
    ),
    "slopes": _case(lambda net, x: functional.prelu(x, net.k), _with("k", _seeded(6)), still=("k",)),
    "product": _case(lambda net, x: x @ net.k.expand(x.shape[0], 6, 6, 6), _with("k", _seeded(6, 6)), still=("k",)),
    "frozen_weight": _case(make=_frozen, still=("a.weight",)),
    "all_frozen": _case(make=_all_frozen, refusal="nothing to train"),
    "training_only": _case(_in_eval(lambda x: x.tanh()), refusal="differs from PyTorch in evaluation"),
    "eval_softmax": Case(make=lambda: _Modes(lambda x: x.softmax(1)), refusal="differs from PyTorch in evaluation"),
    "always_dropping": _case(lambda net, x: functional.dropout(x, 0.5), refusal="in eval\\(\\) mode"),
    "dropout_in_place": _case(lambda net, x: functional.dropout(x.relu(), 0.2, net.training, True), drops=True),
    "counter": _case(_counting, _with("k", lambda: torch.tensor(0.0)), refusal="buffer 'k' is changed by forward"),
    "counter_in_python": _case(_counting_in_python, _plain("k", lambda: 1), refusal="the same twice"),
    "numpy_noise": _case(
        lambda net, x: x + float(np.random.rand()) if net.training else x, refusal="the same twice|differs from PyTorch"
    ),
    "python_noise": _case(lambda net, x: x * (1 + random.random()), refusal="the same twice|differs from PyTorch"),
    "noise": _case(lambda net, x: x + torch.randn_like(x), refusal="draws random numbers"),
    "stochastic_depth": _case(
        lambda net, x: x * torch.rand(x.shape[0], 1, 1, 1) if net.training else x, refusal="draws random numbers"
    ),
    "one_draw": _case(lambda net, x: x * torch.rand(()), refusal="draws random numbers"),
    "neighbours": _case(_neighbours, refusal="for one example of the batch follows from others"),
    "mean_of_batch": _case(lambda net, x: x - x.mean(0, keepdim=True), refusal="over the batch"),
    "gram": _case(
        lambda net, x: x + (x.flatten(1) @ x.flatten(1).t()).mean(1).view(-1, 1, 1, 1), refusal="over the batch"
    ),
    "examples_in_a_product": _case(
        lambda net, x: (x.flatten(1)[:, :4] @ x.flatten(1)).view(x.shape),
        refusal="for one example of the batch follows from others",
    ),
    "norm_over_the_batch": _case(
        lambda net, x: functional.layer_norm(x, x.shape), refusal="for one example of the batch follows from others"
    ),
    "whole_numbers": _case(lambda net, x: x * net.k, _with("k", lambda: torch.arange(6).view(6, 1, 1)), still=()),
    "truths": _case(lambda net, x: x * net.k, _with("k", lambda: torch.arange(6).view(6, 1, 1) > 2)),
    "constant": _case(lambda net, x: x * torch.tensor([1.0, 2, 3, 4, 5, 6]).view(6, 1, 1)),
    "constant_on_the_left": _case(lambda net, x: torch.arange(1.0, 7.0).view(6, 1, 1) - x),
    "attribute": _case(lambda net, x: x / net.k, _plain("k", _seeded(6, 1, 1))),
    "not_persistent": _case(lambda net, x: x + net.k, _with("k", _seeded(6, 1, 1), persistent=False)),
    "buffer": _case(lambda net, x: (x - net.k) / net.k, _with("k", _seeded(6, 1, 1)), still=("k",)),
    "two_names": _case(make=_second_name),
    "two_names_last": Case(make=lambda: _Twice(nn.Conv2d(3, 6, 3))),
    "shared_norm": _case(lambda net, x: net.norm(x).relu(), _several(_norm(lambda: nn.BatchNorm2d(6)), _second_norm)),
    "bias_read_twice": _case(
        lambda net, x: (net.up(x) + net.up.bias.view(6, 1, 1)).relu(), lambda net: setattr(net, "up", _turning())
    ),
    "conversions": _case(
        lambda net, x: x.float().to(torch.float32).to("cpu").to(x.dtype).type_as(x).view_as(x).reshape_as(x).square()
    ),
    "half_way": _case(lambda net, x: x.half().float(), refusal="float16|float32"),
    "stacked": _case(lambda net, x: torch.stack([x.relu(), x.tanh()]).sum(0)),
    "sequence_first": Case(make=SequenceFirst, input_shape=SEQUENCE, drops=True),
    "rotary": Case(make=Rotary, input_shape=SEQUENCE),
    "per_token": Case(make=PerToken, input_shape=SEQUENCE),
    "by_batch": _case(lambda net, x: x * (0.1 * x.shape[0])),
    "leaky": _case(lambda net, x: net.act(x), lambda net: setattr(net, "act", nn.LeakyReLU(0.1))),
    "log_softmax": Case(make=lambda: Ending(lambda x: functional.log_softmax(x, 1))),
    "softmax": Case(make=lambda: Ending(lambda x: functional.softmax(x, 1))),
    "turned_weight": Case(make=_turned),
    "channels_last": Case(make=lambda: Net(lambda net, x: x.relu()).to(memory_format=torch.channels_last)),
    "in_eval_as_a_whole": Case(
        make=lambda: Net(lambda net, x: net.norm(x).relu(), _norm(lambda: nn.BatchNorm2d(6))).eval()
    ),
    "half": Case(make=lambda: Net(lambda net, x: x.relu()).half(), refusal="is float16.*call .float"),
    "double": Case(make=lambda: Net(lambda net, x: x.relu()).double(), refusal="is float64.*call .float"),
    "not_a_number": Case(make=_not_a_number, refusal="parameter 'a.weight' has values that are not finite"),
    "lazy": Case(make=_lazy, refusal="has no shape yet"),
    "compiled": Case(make=lambda: torch.compile(Net(lambda net, x: x.relu())), refusal="torch.compile"),
    "scripted": Case(make=lambda: torch.jit.script(nn.Linear(3, 10)), refusal="torch.jit"),
    "parallel": Case(make=lambda: nn.DataParallel(Net(lambda net, x: x.relu())), refusal="DataParallel; return its"),
    "failing": Case(make=_failing, refusal="ValueError: no weights file second line$"),
    "leaving": Case(make=_leaving, refusal="SystemExit: 3"),
    "no_module": Case(make=lambda: 3, refusal="returned int, not a torch.nn.Module"),
}


class _Twice(nn.Module):
    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.a, self.z, self.fc = convolution, nn.Sequential(convolution, nn.ReLU()), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.z(x).mean((2, 3)))


class _Modes(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.fc, self.change = nn.Conv2d(3, 6, 3), nn.Linear(6, 10), change

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(self.a(x).relu().mean((2, 3)))
        return x if self.training else self.change(x)


def __getattr__(name: str) -> Callable[[], Any]:
    """The factory of a model, as `package.module:factory` asks for it."""
    if name not in ZOO:
        raise AttributeError(name)
    return ZOO[name].make
