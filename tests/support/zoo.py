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

from tests.support.zoo_changes import (
    Clip,
    Reverse,
    StillNorm,
    Swish,
    batch_norm_in_eval,
    counting,
    counting_in_python,
    hooked,
    in_eval,
    moved_statistics,
    seeded,
    several,
    turning,
    with_all_frozen,
    with_attribute,
    with_buffer,
    with_frozen_weight,
    with_hook,
    with_module_hook,
    with_neighbours,
    with_norm,
    with_scale_and_shift,
    with_second_name,
    with_second_norm,
    without_gradient,
    zeros,
)
from tests.support.zoo_networks import (
    Ending,
    Modes,
    Net,
    PerToken,
    Rotary,
    SequenceFirst,
    Twice,
    fail,
    leave,
    of_lazy_layers,
    turned,
    with_a_nan,
)

IMAGE, SEQUENCE = (3, 8, 8), (5, 6)


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
    "tensor_hook": _case(hooked, refusal="registers a hook on a tensor's gradient"),
    "parameter_hook": _case(make=with_hook, refusal="parameter 'a.weight' has a hook"),
    "module_hook": _case(make=with_module_hook, refusal="module 'a' has a backward hook"),
    "detached": _case(lambda net, x: x.relu() + 0.5 * x.detach().tanh()),
    "stopped": _case(lambda net, x: x.detach().relu()),
    "no_grad": _case(without_gradient, refusal="switches gradients off"),
    "still_norm": _case(lambda net, x: net.norm(x).relu(), with_norm(moved_statistics(lambda: StillNorm(6)))),
    "norm_left_in_eval": _case(
        lambda net, x: net.norm(x).relu(),
        with_norm(moved_statistics(batch_norm_in_eval)),
        still=("norm.running_mean", "norm.running_var"),
    ),
    "norm_by_function": _case(
        lambda net, x: functional.batch_norm(x, net.mean, net.var, net.g, net.b, False).relu(),
        several(with_buffer("mean", seeded(6)), with_buffer("var", seeded(6)), with_scale_and_shift),
        still=("mean", "var"),
    ),
    "norm_without_affine": _case(
        lambda net, x: net.norm(x).relu() + x,
        with_norm(moved_statistics(lambda: nn.BatchNorm2d(6, affine=False).eval())),
    ),
    "norm_frozen_whole": _case(
        lambda net, x: (net.norm(x) + x).relu(),
        with_norm(moved_statistics(lambda: nn.BatchNorm2d(6).eval().requires_grad_(False))),
        still=("norm.weight", "norm.bias", "norm.running_mean"),
    ),
    "norm_affine_frozen": _case(
        lambda net, x: net.norm(x).relu(),
        with_norm(lambda: nn.BatchNorm2d(6).requires_grad_(False)),
        still=("norm.weight", "norm.bias"),
    ),
    "blur": _case(
        lambda net, x: functional.conv2d(x, net.k, padding=1, groups=6).relu(),
        with_buffer("k", seeded(6, 1, 3, 3)),
        still=("k",),
    ),
    "blur_not_persistent": _case(
        lambda net, x: functional.conv2d(x, net.k, padding=1, groups=6).relu(),
        with_buffer("k", seeded(6, 1, 3, 3), persistent=False),
    ),
    "blur_transposed": _case(
        lambda net, x: functional.conv_transpose2d(x, net.k, net.bias, stride=2).relu(),
        several(with_buffer("k", seeded(6, 6, 2, 2)), with_buffer("bias", seeded(6))),
        still=("k", "bias"),
    ),
    "projection": _case(
        lambda net, x: functional.linear(x, net.k, net.shift).relu(),
        several(with_buffer("k", seeded(6, 6)), with_buffer("shift", seeded(6))),
        still=("k", "shift"),
    ),
    "scale_of_layer_norm": _case(
        lambda net, x: functional.layer_norm(x, (6,), net.k), with_buffer("k", seeded(6)), still=("k",)
    ),
    "scale_of_group_norm": _case(
        lambda net, x: functional.group_norm(x, 2, net.k, net.k), with_buffer("k", seeded(6)), still=("k",)
    ),
    "scale_of_batch_norm": _case(
        lambda net, x: functional.batch_norm(x, net.mean, net.var, net.k, net.k, net.training).relu(),
        several(with_buffer("mean", zeros), with_buffer("var", seeded(6)), with_buffer("k", seeded(6))),
        still=("k",),
    ),
    "statistics_of_the_batch": _case(
        lambda net, x: functional.batch_norm(x, net.mean, net.var, None, None, True).relu(),
        several(with_buffer("mean", zeros), with_buffer("var", seeded(6))),
        refusal=r"in eval\(\) mode the model's result for one example follows from others",
    ),
    "slopes": _case(lambda net, x: functional.prelu(x, net.k), with_buffer("k", seeded(6)), still=("k",)),
    "product": _case(
        lambda net, x: x @ net.k.expand(x.shape[0], 6, 6, 6), with_buffer("k", seeded(6, 6)), still=("k",)
    ),
    "frozen_weight": _case(make=with_frozen_weight, still=("a.weight",)),
    "all_frozen": _case(make=with_all_frozen, refusal="nothing to train"),
    "training_only": _case(in_eval(lambda x: x.tanh()), refusal="differs from PyTorch in evaluation"),
    "eval_softmax": Case(make=lambda: Modes(lambda x: x.softmax(1)), refusal="differs from PyTorch in evaluation"),
    "always_dropping": _case(lambda net, x: functional.dropout(x, 0.5), refusal="in eval\\(\\) mode"),
    "dropout_in_place": _case(lambda net, x: functional.dropout(x.relu(), 0.2, net.training, True), drops=True),
    "dropout_of_channels": _case(lambda net, x: functional.dropout2d(x.relu(), 0.2, net.training), drops=True),
    "counter": _case(counting, with_buffer("k", lambda: torch.tensor(0.0)), refusal="buffer 'k' is changed by forward"),
    "counter_in_python": _case(counting_in_python, with_attribute("k", lambda: 1), refusal="the same twice"),
    "numpy_noise": _case(
        lambda net, x: x + float(np.random.rand()) if net.training else x, refusal="the same twice|differs from PyTorch"
    ),
    "python_noise": _case(lambda net, x: x * (1 + random.random()), refusal="the same twice|differs from PyTorch"),
    "noise": _case(lambda net, x: x + torch.randn_like(x), refusal="draws random numbers"),
    "stochastic_depth": _case(
        lambda net, x: x * torch.rand(x.shape[0], 1, 1, 1) if net.training else x, refusal="draws random numbers"
    ),
    "drop_path": _case(
        lambda net, x: x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.7).div_(0.7) if net.training else x, drops=True
    ),
    "one_draw": _case(lambda net, x: x * torch.rand(()), refusal="draws random numbers"),
    "neighbours": _case(with_neighbours, refusal="for one example of the batch follows from others"),
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
    "whole_numbers": _case(lambda net, x: x * net.k, with_buffer("k", lambda: torch.arange(6).view(6, 1, 1)), still=()),
    "truths": _case(lambda net, x: x * net.k, with_buffer("k", lambda: torch.arange(6).view(6, 1, 1) > 2)),
    "constant": _case(lambda net, x: x * torch.tensor([1.0, 2, 3, 4, 5, 6]).view(6, 1, 1)),
    "constant_on_the_left": _case(lambda net, x: torch.arange(1.0, 7.0).view(6, 1, 1) - x),
    "attribute": _case(lambda net, x: x / net.k, with_attribute("k", seeded(6, 1, 1))),
    "not_persistent": _case(lambda net, x: x + net.k, with_buffer("k", seeded(6, 1, 1), persistent=False)),
    "buffer": _case(lambda net, x: (x - net.k) / net.k, with_buffer("k", seeded(6, 1, 1)), still=("k",)),
    "two_names": _case(make=with_second_name),
    "two_names_last": Case(make=lambda: Twice(nn.Conv2d(3, 6, 3))),
    "shared_norm": _case(
        lambda net, x: net.norm(x).relu(), several(with_norm(lambda: nn.BatchNorm2d(6)), with_second_norm)
    ),
    "bias_read_twice": _case(
        lambda net, x: (net.up(x) + net.up.bias.view(6, 1, 1)).relu(), lambda net: setattr(net, "up", turning())
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
    "turned_weight": Case(make=turned),
    "channels_last": Case(make=lambda: Net(lambda net, x: x.relu()).to(memory_format=torch.channels_last)),
    "in_eval_as_a_whole": Case(
        make=lambda: Net(lambda net, x: net.norm(x).relu(), with_norm(lambda: nn.BatchNorm2d(6))).eval()
    ),
    "half": Case(make=lambda: Net(lambda net, x: x.relu()).half(), refusal="is float16.*call .float"),
    "double": Case(make=lambda: Net(lambda net, x: x.relu()).double(), refusal="is float64.*call .float"),
    "not_a_number": Case(make=with_a_nan, refusal="parameter 'a.weight' has values that are not finite"),
    "lazy": Case(make=of_lazy_layers, refusal="has no shape yet"),
    "compiled": Case(make=lambda: torch.compile(Net(lambda net, x: x.relu())), refusal="torch.compile"),
    "scripted": Case(make=lambda: torch.jit.script(nn.Linear(3, 10)), refusal="torch.jit"),
    "parallel": Case(make=lambda: nn.DataParallel(Net(lambda net, x: x.relu())), refusal="DataParallel; return its"),
    "failing": Case(make=fail, refusal="ValueError: no weights file second line$"),
    "leaving": Case(make=leave, refusal="SystemExit: 3"),
    "no_module": Case(make=lambda: 3, refusal="returned int, not a torch.nn.Module"),
}


assert not ZOO.keys() & globals().keys(), "`__getattr__` is asked for what is not found alone"


def __getattr__(name: str) -> Callable[[], Any]:
    """The factory of a model, as `package.module:factory` asks for it."""
    if name not in ZOO:
        raise AttributeError(name)
    return ZOO[name].make
