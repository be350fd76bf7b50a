"""PyTorch eager as the reference: the same block, output module and update, by autograd.

The module is run as PyTorch's own exported graph, operator by operator, because that can be entered and left where the
model is cut: operators before the block in inference mode and without gradients, those of the block and of the head in
training mode. Of this project's exporter it takes only the names of the activations where blocks begin and end.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from device_profiles.model import Partition
from edge_runtime.export.cut.units import CutModel


class GraphRunner:
    """Runs parts of a module's exported graph eagerly, on the module's own parameters and buffers."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        program = torch.export.export(module.train(), (example,))
        signature = program.graph_signature
        tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._tensors = {placeholder: tensors[name] for placeholder, name in names.items()}
        self._nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        self._output = signature.user_outputs[0]
        self.input = signature.user_inputs[0]

    def run(self, start: str, end: str | None, value: Tensor, *, training: bool) -> Tensor:
        """From activation `start`, which is `value`, to activation `end` (None: the model's output)."""
        end = self._output if end is None else end
        if start == end:
            return value
        known: dict[str, Any] = {**self._tensors, start: value}
        names = [node.name for node in self._nodes]
        first = names.index(start) + 1 if start in names else 0
        for node in self._nodes[first : names.index(end) + 1]:
            if any(getattr(argument, "name", "").endswith("num_batches_tracked") for argument in node.args):
                continue
            arguments = torch.fx.node.map_arg(node.args, lambda argument: known[argument.name])
            known[node.name] = self._call(node.target, list(arguments), node.kwargs, training)
        return known[end]

    @staticmethod
    def _call(target: Any, arguments: list[Any], keywords: dict[str, Any], training: bool) -> Any:
        if target is operator.getitem:
            return arguments[0][arguments[1]]
        switches = {"aten.batch_norm.default": 5, "aten.dropout.default": 2, "aten.dropout_.default": 2}
        if str(target) in switches:
            arguments[switches[str(target)]] = training
        return target(*arguments, **keywords)


class BlockReference:
    """Trains block `index` (1-based) of `module` with SGD as PyTorch does, from `weights` by a bundle's names.

    `runner` runs the same module. `proximal_mu` is the factor of FedProx's term.
    """

    def __init__(
        self,
        module: nn.Module,
        runner: GraphRunner,
        cut: CutModel,
        partition: Partition,
        index: int,
        weights: dict[str, Tensor],
        *,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        nesterov: bool = False,
        proximal_mu: float = 0.0,
    ) -> None:
        self.module = module
        module.load_state_dict({k: v for k, v in weights.items() if not k.startswith("output_module.")})
        self.runner = runner
        block = partition.blocks[index - 1]
        self.start, self.end = cut.units[block.first_unit].input, cut.units[block.last_unit].output
        self.head = cut.head.input
        self.stand_ins = {
            f"output_module.block{b.index}.weight": nn.Parameter(
                weights[f"output_module.block{b.index}.weight"].clone()
            )
            for b in partition.blocks[index:]
        }
        self.shapes = [cut.shapes[cut.units[b.last_unit].output] for b in partition.blocks[index:]]
        units = cut.units[block.first_unit : block.last_unit + 1]
        names = {name for unit in (*units, cut.head) for name in unit.tensors}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in names)
        self.trained = [*(p for p in module.parameters() if p.requires_grad), *self.stand_ins.values()]
        self.started = [parameter.detach().clone() for parameter in self.trained]
        self.proximal_mu = proximal_mu
        self.optimizer = torch.optim.SGD(
            self.trained, lr=0.05, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )

    def step(self, inputs: Tensor, labels: Tensor, rate: float, *, micro_batch: int | None = None) -> float:
        """One step; returns the loss before the update. Gradients of micro-batches are accumulated."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        size, total = micro_batch or len(inputs), 0.0
        for first in range(0, len(inputs), size):
            part = slice(first, first + size)
            loss = functional.cross_entropy(self.logits(inputs[part]), labels[part]) * (size / len(inputs))
            loss.backward()
            total += float(loss.detach())
        add_proximal(self.trained, self.started, self.proximal_mu)
        self.optimizer.step()
        return total

    def logits(self, inputs: Tensor) -> Tensor:
        """Of the block with its output module, in training mode; the inputs may be overwritten."""
        with torch.no_grad():
            x = self.runner.run(self.runner.input, self.start, inputs.clone(), training=False)
        x = self.runner.run(self.start, self.end, x, training=True)
        for weight, shape in zip(self.stand_ins.values(), self.shapes, strict=True):
            x = stand_in(x, weight, shape)
        return self.runner.run(self.head, None, x, training=True)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the bundle's names."""
        return {**self.module.state_dict(), **{name: p.detach() for name, p in self.stand_ins.items()}}


def add_proximal(trained: list[nn.Parameter], started: list[Tensor], mu: float) -> None:
    """The gradient of FedProx's mu / 2 ||w - w_start||^2, added to the gradients."""
    for parameter, start in zip(trained, started, strict=True):
        assert parameter.grad is not None
        parameter.grad += mu * (parameter.detach() - start)


def stand_in(x: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The output of a stand-in for a block that puts out `shape`, written out for every kind of block."""
    if len(shape) == 2:
        return functional.linear(x if x.dim() == 2 else x.flatten(2).mean(2), weight)
    if weight.dim() == 2:  # to one pixel, from further than a window sees
        return functional.linear(x.flatten(2).mean(2), weight).reshape(-1, *shape[1:])
    if any(after > before for before, after in zip(x.shape[2:], shape[2:], strict=True)):
        convolve = functional.conv1d if len(shape) == 3 else functional.conv2d
        return functional.interpolate(convolve(x, weight, padding=1), size=shape[2:])
    stride = [before // after for before, after in zip(x.shape[2:], shape[2:], strict=True)]
    convolve = functional.conv1d if len(shape) == 3 else functional.conv2d
    for padding in (1, 0):
        y = convolve(x, weight, None, stride, padding)
        if y.shape[1:] == shape[1:]:
            return y
    raise AssertionError(f"no stand-in from {tuple(x.shape)} to {shape}")
