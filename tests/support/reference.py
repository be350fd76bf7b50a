"""PyTorch eager as the reference: the same block, output module and update, written with torch.nn only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from device_profiles.model import Partition
from edge_runtime.export import models


def unit_modules(name: str, module: nn.Module) -> list[nn.Module]:
    """The model's units as modules, by hand, independent of the exporter's cuts."""
    if name.startswith("resnet"):
        units: list[nn.Module] = [nn.Sequential(module.conv1, module.bn1, module.relu)]
        for stage in range(module.stages):
            units += list(getattr(module, f"layer{stage + 1}"))
        return units
    if name == "cnn":
        return [module.stage1, module.stage2, module.stage3]
    units, current = [], []
    for layer in module.features:
        if isinstance(layer, nn.Conv2d) and current:
            units.append(nn.Sequential(*current))
            current = []
        current.append(layer)
    return [*units, nn.Sequential(*current)]


class BlockReference:
    """Trains block `index` (1-based) of `model` with SGD as PyTorch does; `double` computes in float64.

    With `first_unit`, units from that one to the block's last are; past the last, the output module alone.
    """

    def __init__(
        self,
        model: str,
        partition: Partition,
        index: int,
        weights: dict[str, Tensor],
        *,
        width: int,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        double: bool = False,
        first_unit: int | None = None,
    ) -> None:
        self.dtype = torch.float64 if double else torch.float32
        self.module = models.create(model, width=width)
        self.module.load_state_dict({k: v for k, v in weights.items() if not k.startswith("output_module.")})
        units = unit_modules(model, self.module)
        start = partition.blocks[index - 1].first_unit if first_unit is None else first_unit
        self.prefix = nn.Sequential(*units[:start]).eval()
        self.active = nn.Sequential(*units[start : partition.blocks[index - 1].last_unit + 1]).train()
        self.head = self.module.classifier if model.startswith("vgg") else self.module.fc
        self.stand_ins = {
            f"output_module.block{b.index}.weight": nn.Parameter(
                weights[f"output_module.block{b.index}.weight"].to(self.dtype, copy=True)
            )
            for b in partition.blocks[index:]
        }
        self.strides = [self._reduction(units, b.first_unit, b.last_unit) for b in partition.blocks[index:]]
        self.module.to(self.dtype)
        for parameter in self.prefix.parameters():
            parameter.requires_grad_(False)
        trained = [*self.active.parameters(), *self.head.parameters(), *self.stand_ins.values()]
        self.optimizer = torch.optim.SGD(trained, lr=0.05, momentum=momentum, weight_decay=weight_decay)

    @staticmethod
    def _reduction(units: Sequence[nn.Module], first: int, last: int) -> int:
        with torch.no_grad():
            before = torch.zeros(2, 3, 32, 32)
            for unit in units[:first]:
                before = unit.eval()(before)
            after = before
            for unit in units[first : last + 1]:
                after = unit.eval()(after)
        return before.shape[2] // after.shape[2]

    def step(self, images: Tensor, labels: Tensor, rate: float) -> float:
        """One step; returns the loss before the update."""
        self.prefix.eval()
        self.active.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            x = self.prefix(images.to(self.dtype))
        x = self.active(x)
        for weight, stride in zip(self.stand_ins.values(), self.strides, strict=True):
            x = functional.conv2d(x, weight, stride=stride, padding=1)
        loss = functional.cross_entropy(self.head(x.mean((2, 3))), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the bundle's names."""
        return {**self.module.state_dict(), **{name: p.detach() for name, p in self.stand_ins.items()}}
