"""What a user's factory returned, looked at before it is traced: one line for what cannot be exported, and why."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from device_profiles.errors import UsageError

_NAMED = 3
"""Tensors that a note names before it counts the others."""


def check_module(module: object, model: str) -> nn.Module:
    """`module` if it can be traced; raises UsageError, naming `model` and what is in the way."""
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"the factory returned {type(module).__name__}, not a torch.nn.Module", field="model", value=model
        )
    _refuse_wrappers(module, model)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        problem = _problem(name, tensor)
        if problem is not None:
            kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
            raise UsageError(f"{kind} '{name}' {problem}", field="model", value=model)
    return module


def _refuse_wrappers(module: nn.Module, model: str) -> None:
    wrapped = {
        "OptimizedModule": "compiled by torch.compile; return the module itself",
        "DataParallel": "wrapped in DataParallel; return its .module",
        "DistributedDataParallel": "wrapped in DistributedDataParallel; return its .module",
        "FullyShardedDataParallel": "wrapped in FullyShardedDataParallel; return the module itself",
    }
    for name, part in module.named_modules():
        place = f"module '{name}' is" if name else "the factory returned a module"
        if isinstance(part, torch.jit.ScriptModule):
            raise UsageError(
                f"{place} compiled by torch.jit",
                field="model",
                value=model,
                remedy="return the nn.Module that it was made of",
            )
        if type(part).__name__ in wrapped:
            raise UsageError(f"{place} {wrapped[type(part).__name__]}", field="model", value=model)


def _problem(name: str, tensor: torch.Tensor) -> str | None:
    if is_lazy(tensor):
        return "has no shape yet, since its layer is lazy; run the model once on an example in the factory"
    if tensor.device.type != "cpu":
        return f"lies on the device {tensor.device}; call .cpu() on the model"
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float32):
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"is {kind}, this runtime computes in float32; call .float() on the model"
    trained = isinstance(tensor, nn.Parameter) or name.endswith(("running_mean", "running_var"))
    if trained and not bool(torch.isfinite(tensor).all()):
        return "has values that are not finite numbers; correct the weights"
    return None


def notes_on(module: nn.Module) -> list[str]:
    """What a user should know about how the module is trained: what is frozen, and what stays in inference mode."""
    notes = []
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if frozen:
        notes.append(
            f"note: {_counted(frozen, 'parameter')} with requires_grad=False keep their values: {_some(frozen)}"
        )
    still = [name for name, part in module.named_modules() if module.training and not part.training]
    if still:
        notes.append(
            f"note: {_counted(still, 'module')} in inference mode, as the factory left them, stay in it while "
            f"training: {_some(still)}"
        )
    return notes


def _counted(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
