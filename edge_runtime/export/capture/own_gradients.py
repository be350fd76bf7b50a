"""Gradients that the user's code changes: hooks, and `torch.autograd.Function` with a backward of its own.

A captured graph has what forward computes; the exporter differentiates that. What a module does to its gradients beside
that is not in it, so that it is looked for while PyTorch traces the module, and refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from device_profiles.errors import UsageError

_SCALES = (1e-3, 1.0, 1e3)
"""Sizes of the gradients that a Function is tried with: one that clips them changes the large ones alone."""
_CLOSE = 1e-4
_HOOKS = {
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward hook",
}


def refuse_hooks(model: nn.Module) -> None:
    """Raise UsageError, naming the module or parameter, where a hook is called with gradients."""
    for name, module in model.named_modules():
        for attribute, what in _HOOKS.items():
            if getattr(module, attribute, None):
                raise UsageError(_hook_refusal(f"{_place(name)} has {what}"))
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise UsageError(_hook_refusal(f"parameter '{name}' has a hook on its gradient"))


def _hook_refusal(what: str) -> str:
    return f"{what}, which this runtime would not call; remove the hook before the model is exported"


def _place(name: str) -> str:
    return f"module '{name}'" if name else "the model"


@contextmanager
def watched(model: nn.Module) -> Iterator[None]:
    """While the body traces `model`: raise UsageError, naming module and class, for what changes gradients."""
    refuse_hooks(model)
    found: dict[type, tuple[str, tuple[Any, ...]]] = {}
    apply, register = torch.autograd.Function.__dict__["apply"], torch.Tensor.register_hook

    def recording(cls: type, *args: Any, **kwargs: Any) -> Any:
        if not cls.__module__.startswith("torch."):
            found.setdefault(cls, (_caller(model), tuple(_described(argument) for argument in args)))
        return apply.__func__(cls, *args, **kwargs)

    def refusing(tensor: torch.Tensor, hook: Callable[..., Any]) -> Any:
        raise UsageError(_hook_refusal(f"{_caller(model)}: forward registers a hook on a tensor's gradient"))

    torch.autograd.Function.apply = classmethod(recording)  # type: ignore[assignment]  # put back below
    torch.Tensor.register_hook = refusing  # type: ignore[method-assign]  # put back below
    try:
        yield
    finally:
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]  # the original
        torch.Tensor.register_hook = register  # type: ignore[method-assign]  # the original
    for function, (place, arguments) in found.items():
        if not _differentiates(function, arguments):
            raise UsageError(
                f"{place}: the backward of autograd.Function '{function.__name__}' is not the derivative of its "
                "forward, which is what this runtime trains by; leave it out, or write it with operators whose own "
                "gradients are meant"
            )


def _caller(model: nn.Module) -> str:
    """The module of `model` whose forward is being run, from the frames above."""
    names = {id(module): name for name, module in model.named_modules()}
    frame = sys._getframe(2)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            return _place(names[id(owner)]) if names[id(owner)] else "the model's own forward"
        frame = frame.f_back  # type: ignore[assignment]  # None behind the last
    return "the model's own forward"


def _described(argument: Any) -> Any:
    """A tensor as its shape and type, since the tracer's tensors have no values; anything else as it is."""
    return (tuple(argument.shape), argument.dtype) if isinstance(argument, torch.Tensor) else argument


class _Context:
    """What a Function's forward is given to save things for its backward, when it is differentiated itself."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def _differentiates(function: type, described: tuple[Any, ...]) -> bool:
    """Whether the Function's backward is the derivative of its forward, on random tensors like those of the trace."""
    try:
        with torch.random.fork_rng(devices=[]):
            return all(_agrees(function, described, scale) for scale in _SCALES)
    except Exception:  # whatever a user's Function raises when it is called by itself
        return False


def _agrees(function: type, described: tuple[Any, ...], scale: float) -> bool:
    torch.manual_seed(0)
    arguments = [_made(argument) for argument in described]
    inputs = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    forward: Any = function.forward  # type: ignore[attr-defined]  # of every Function
    own = function.apply(*arguments)  # type: ignore[attr-defined]  # of every Function
    plain = forward(*arguments) if "setup_context" in vars(function) else forward(_Context(), *arguments)
    if not isinstance(own, torch.Tensor) or not inputs or not own.requires_grad:
        return False
    if not plain.requires_grad:  # rounding and the like: no derivative of its own
        return False
    gradient = scale * torch.randn_like(own)
    mine, theirs = (torch.autograd.grad(y, inputs, gradient, allow_unused=True) for y in (own, plain))
    return all(_same(a, b) for a, b in zip(mine, theirs, strict=True))


def _made(argument: Any) -> Any:
    if not (isinstance(argument, tuple) and len(argument) == 2 and isinstance(argument[1], torch.dtype)):
        return argument
    shape, dtype = argument
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    return torch.randn(shape, dtype=dtype).requires_grad_()


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool((a - b).norm() <= _CLOSE * b.norm())
