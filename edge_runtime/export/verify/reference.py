"""One step and one evaluation of the user's own module by PyTorch: what a program is held against.

Nothing here knows of the capture: the module's own forward is called and PyTorch's autograd differentiates it, with
whatever hooks and Functions there are. Dropout drops nothing, on both sides.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from device_profiles.contract import IGNORED_LABEL
from device_profiles.manifest import Loss
from edge_runtime.export.capture.tracing import kept_modes, quiet, training_modes

_SMALL = 0.03
"""Parameters below this size, such as a LayerScale of 1e-5 or a gamma of 0, would hide what is behind them."""


def _as_they_are(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Loss, logits and gradients of one batch in training, and the buffers that it leaves; by name.

    `outputs` are those of the modules that are called once, in the order of the calls.
    """

    loss: float
    gradients: dict[str, Tensor]
    statistics: dict[str, Tensor]
    again: Tensor
    logits: Tensor
    outputs: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def at_random_weights(module: nn.Module, seed: int) -> Iterator[None]:
    """Parameters moved a little and running statistics that are not those of a fresh module; all as before at the end.

    The random numbers of PyTorch, numpy and Python go on as if nothing had been drawn.
    """
    tensors = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    gradients = [tensor.grad for tensor in tensors]
    states = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), kept_modes(module), quiet():
            torch.manual_seed(seed)
            _move(module)
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
        with torch.no_grad():
            for tensor, value, gradient in zip(tensors, before, gradients, strict=True):
                tensor.data = tensor.data.to(value.dtype)
                tensor.copy_(value)
                tensor.grad = gradient


@torch.no_grad()
def _move(module: nn.Module) -> None:
    for parameter in module.parameters():
        size = float(parameter.square().mean().sqrt()) if parameter.numel() else 0.0
        if size < 1e-3 and parameter.dim() > 1:
            parameter.add_(torch.randn_like(parameter) * (0.5 / max(1, parameter[0].numel()) ** 0.5))
        else:
            parameter.add_(torch.randn_like(parameter) * (0.1 * size if parameter.dim() > 1 else max(size, 0.5) * 0.1))
        if size < _SMALL and parameter.dim() == 1:
            parameter.add_(0.2)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.1 * torch.randn_like(buffer))
        elif name.endswith("running_var"):
            buffer.mul_(0.5 + torch.rand_like(buffer))


def trained_step(
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    *,
    double: bool = False,
    arranged: Callable[[Tensor], Tensor] = _as_they_are,
) -> Step:
    """One forward and backward pass as the module trains, and a second forward pass.

    `arranged` brings the module's logits into the rows that programs put out.
    """
    if double:
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.double()
        inputs, targets = (t.double() if t.is_floating_point() else t for t in (inputs, targets))
    for parameter in module.parameters():
        parameter.grad = None
    outputs: dict[str, Tensor] = {}
    with training_modes(module), _NoDropout():
        with _listening(module, outputs):
            logits = arranged(module(inputs.clone()))
        value = loss_of(logits, targets, loss)
        value.backward()  # type: ignore[no-untyped-call]  # torch ships no types here
        buffers = module.named_buffers(remove_duplicate=False)
        statistics = {name: buffer.detach().clone() for name, buffer in buffers if buffer.is_floating_point()}
        with torch.no_grad():
            again = arranged(module(inputs.clone()))
    parameters = module.named_parameters(remove_duplicate=False)
    gradients = {name: p.grad.detach().clone() for name, p in parameters if p.grad is not None}
    for parameter in module.parameters():
        parameter.grad = None
    return Step(
        loss=float(value.detach()),
        gradients=gradients,
        statistics=statistics,
        again=again.detach(),
        logits=logits.detach(),
        outputs=outputs,
    )


def loss_of(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """As the programs' own: see docs/operators.md."""
    if loss.name == "mse":
        return functional.mse_loss(logits, targets)
    if targets.dim() > 1:  # [batch, positions]
        logits, targets = logits.reshape(targets.numel(), -1), targets.flatten()
    return functional.cross_entropy(logits, targets, label_smoothing=loss.label_smoothing, ignore_index=IGNORED_LABEL)


@torch.no_grad()
def settle(module: nn.Module, inputs: Tensor) -> None:
    """Make the running statistics of every BatchNorm that trains those of a batch."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 1.0
        with training_modes(module), _NoDropout():
            module(inputs.clone())
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def evaluated(module: nn.Module, inputs: Tensor, outputs: dict[str, Tensor] | None = None) -> Tensor:
    """What the module puts out after `eval()`; `outputs` takes those of its modules."""
    with kept_modes(module):
        module.eval()
        with _listening(module, {} if outputs is None else outputs):
            answer: Tensor = module(inputs.clone())
            return answer


@contextmanager
def _listening(module: nn.Module, outputs: dict[str, Tensor]) -> Iterator[None]:
    """Keep what every module puts out while the body runs, of those that are called once."""
    several: set[str] = set()

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name in outputs:
                several.add(name)
            elif isinstance(output, Tensor):
                outputs[name] = output.detach().clone()

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in module.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name in several:
            del outputs[name]


class _NoDropout(TorchFunctionMode):
    """Dropout hands on what it is given, in attention as well: which elements are dropped is the runtime's own."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn: Tensor | None = None

    def _part(self, tensor: Tensor) -> Tensor:
        """A part of the draw that is being written out."""
        self._drawn = tensor
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.rand:
            # Of floor(share + rand), by which what stays is divided: the share itself.
            return self._part(torch.zeros_like(func(*args, **kwargs)))
        if func in _SUMS and any(part is self._drawn for part in args):
            return self._part(func(*args, **kwargs))
        if func in _FLOORS and args[0] is self._drawn:
            return args[0]
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if (func in _DRAWS and len(args) > 1) or ("p" in kwargs and func in _DRAWS):
            return args[0].fill_(args[1] if len(args) > 1 else kwargs["p"])
        place = _RATES.get(func)
        if place is not None and len(args) > place:
            args = (*args[:place], 0.0, *args[place + 1 :])
        elif place is not None and "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


_DROPOUTS = frozenset(
    {
        functional.dropout,
        functional.dropout1d,
        functional.dropout2d,
        functional.dropout3d,
        torch.dropout,
        torch.dropout_,
        torch.feature_dropout,
        torch.feature_dropout_,
    }
)
_SUMS = frozenset({torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__radd__})
_FLOORS = frozenset({torch.floor, torch.floor_, torch.Tensor.floor, torch.Tensor.floor_})
_DRAWS = frozenset({torch.Tensor.bernoulli_})
"""Draws by which what stays is divided later, as stochastic depth does: all of it stays if they are the rate."""
_RATES: dict[Any, int] = {
    functional.scaled_dot_product_attention: 4,
    functional.multi_head_attention_forward: 10,
    **dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), 5),
}
"""Functions with a rate of dropout among their arguments, and its place."""
