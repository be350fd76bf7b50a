"""LoRA (Hu et al., ICLR 2022): a weight stays as it is, and a product of two small matrices that is added to it is
trained. Layers keep their names, so that the finished model is the plain one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from device_profiles.contract import lora_names
from device_profiles.errors import UsageError
from device_profiles.model import Lora
from device_profiles.nearest import nearest
from edge_runtime.export.models.pretrained import classifier_of

_ATTRIBUTE = "profl_lora"


class LoraLinear(nn.Linear):
    """A linear layer beside its adapter: the product of both matrices is never made."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    lora_scale: float

    def forward(self, input: Tensor) -> Tensor:
        """Both paths, added."""
        small = functional.linear(functional.linear(input, self.lora_a), self.lora_b)
        return functional.linear(input, self.weight, self.bias) + self.lora_scale * small


class LoraAttention(nn.MultiheadAttention):
    """PyTorch's attention with adapters of its projections, whose weights are made anew in every step."""

    in_proj_lora_a: nn.Parameter
    in_proj_lora_b: nn.Parameter
    lora_scale: float

    def forward(  # type: ignore[override]  # its masks are keywords here, as PyTorch's own layers give them
        self, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """As PyTorch's, with `need_weights` and the masks among the options."""
        if self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        out = self.out_proj
        inner = self.in_proj_weight + self.lora_scale * (self.in_proj_lora_b @ self.in_proj_lora_a)
        outer = out.weight + self.lora_scale * (out.lora_b @ out.lora_a)  # type: ignore[operator]  # registered below
        attended, weights = functional.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            inner,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            outer,
            out.bias,
            training=self.training,
            **options,
        )
        return attended.transpose(0, 1) if self.batch_first else attended, weights


def add_lora(module: nn.Module, *, rank: int, alpha: float | None, targets: tuple[str, ...], classes: int) -> None:
    """Give linear layers and attentions of `module` adapters of `rank`; all else is frozen, the classifier excepted.

    `targets` are patterns of module names, such as `*.self_attn` or `q_proj`, which also match the end of a name;
    without any, all but the classifier are meant. What an adapter adds is scaled by `alpha / rank`, by default 1. It
    starts at zero. Raises UsageError where a pattern matches nothing that can have one.
    """
    classifier = classifier_of(module, classes)
    layers = {name: layer for name, layer in _layers(module) if name != classifier}
    chosen = {name: layer for name, layer in layers.items() if not targets or any(_is(name, t) for t in targets)}
    for pattern in targets:
        if not any(_is(name, pattern) for name in layers):
            near = nearest(pattern, [name.rpartition(".")[2] for name in layers]) or list(layers)[:8]
            raise UsageError(
                "matches no linear layer or attention",
                field="lora_targets",
                value=pattern,
                remedy=f"there are {', '.join(near)}" if near else "leave LoRA out: the model has none",
            )
    if not chosen:
        raise UsageError("the model has no linear layer beside the classifier", field="lora", value=rank)
    for parameter in module.parameters():
        parameter.requires_grad = False
    if classifier is not None:
        for parameter in module.get_submodule(classifier).parameters():
            parameter.requires_grad = True
    scale = (rank if alpha is None else alpha) / rank
    adapted = []
    for name, layer in chosen.items():
        adapted += [f"{name}.{weight}" for weight in _adapt(layer, rank, scale)]
    setattr(module, _ATTRIBUTE, Lora(rank=rank, scale=scale, weights=tuple(adapted)))


def lora_of(module: nn.Module) -> Lora | None:
    """What `add_lora` gave the module."""
    given: Lora | None = getattr(module, _ATTRIBUTE, None)
    return given


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that can have an adapter. The projection inside of an attention belongs to it, and a weight that is
    another layer's as well (tied) has none: the merged one would be the other's too."""
    owners: dict[int, int] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for name, part in module.named_modules():
        alone = type(part) is nn.Linear and owners[id(part.weight)] == 1
        if alone or (type(part) is nn.MultiheadAttention and part._qkv_same_embed_dim):
            yield name, part


def _is(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _adapt(layer: nn.Module, rank: int, scale: float) -> list[str]:
    """Names of the weights in `layer` that got an adapter."""
    layer.lora_scale = scale  # type: ignore[assignment]  # a number, not a module
    if isinstance(layer, nn.MultiheadAttention):
        _register(layer, "in_proj_weight", layer.in_proj_weight, rank)
        _register(layer.out_proj, "weight", layer.out_proj.weight, rank)
        layer.__class__ = LoraAttention
        return ["in_proj_weight", "out_proj.weight"]
    assert isinstance(layer, nn.Linear)
    _register(layer, "weight", layer.weight, rank)
    layer.__class__ = LoraLinear
    return ["weight"]


def _register(owner: nn.Module, name: str, weight: Tensor, rank: int) -> None:
    if rank >= min(weight.shape):
        raise UsageError(
            f"is not below the smaller side of a weight {list(weight.shape)}",
            field="lora",
            value=rank,
            remedy="give less, or name other layers",
        )
    bound = 1 / math.sqrt(weight.shape[1])
    first, second = lora_names(name)
    owner.register_parameter(first, nn.Parameter(torch.empty(rank, weight.shape[1]).uniform_(-bound, bound)))
    owner.register_parameter(second, nn.Parameter(torch.zeros(weight.shape[0], rank)))
