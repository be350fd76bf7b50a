"""PyTorch eager as the reference for token models: dropout with the runtime's own masks, any optimizer, any loss."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from device_profiles.model import Partition
from edge_runtime.export.cut.units import CutModel
from tests.support.dropout import keep_factors

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
LossFunction = Callable[[Tensor, Tensor], Tensor]
_DROPOUT = ("aten.dropout.default", "aten.dropout_.default")
_ATTENTION = "aten.scaled_dot_product_attention.default"


class DroppingRunner:
    """Runs the exported graph `program` of a module eagerly, on its tensors, between two activations.

    `random` is what dropout follows from.
    """

    def __init__(self, module: nn.Module, program: torch.export.ExportedProgram) -> None:
        signature = program.graph_signature
        tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._tensors = {node: tensors[name] for node, name in names.items()}
        constants = signature.inputs_to_lifted_tensor_constants
        self._tensors |= {node: program.constants[name] for node, name in constants.items()}
        self._nodes = {node.name: node for node in program.graph.nodes}
        self._output = signature.user_outputs[0]
        self._dropping = [node.name for node in program.graph.nodes if _drops(node)]
        self.input = signature.user_inputs[0]
        self.random = (0, 0)

    def run(self, start: str, end: str | None, value: Tensor, *, training: bool) -> Tensor:
        """From activation `start`, which is `value`, to activation `end` (None: the model's output)."""
        known: dict[str, Any] = {**self._tensors, start: value}

        def evaluate(node: torch.fx.Node) -> Any:
            if node.name not in known:
                arguments = torch.fx.node.map_arg(node.args, evaluate)
                keywords = torch.fx.node.map_arg(node.kwargs, evaluate)
                known[node.name] = self._call(node, list(arguments), dict(keywords), training)
            return known[node.name]

        return evaluate(self._nodes[self._output if end is None else end])

    def _call(self, node: torch.fx.Node, arguments: list[Any], keywords: dict[str, Any], training: bool) -> Any:
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        if str(node.target) == "aten.batch_norm.default":
            arguments[5] = training
        if str(node.target) in _DROPOUT:
            return arguments[0] * self._factors(node, arguments[1], arguments[0].shape) if training else arguments[0]
        if str(node.target) == _ATTENTION and _drops(node):
            return self._attention(node, arguments, keywords.get("scale"), training)
        return node.target(*arguments, **keywords)  # type: ignore[operator]  # an operator

    def _factors(self, node: torch.fx.Node, probability: float, shape: torch.Size) -> Tensor | float:
        if probability == 0.0:
            return 1.0
        layer = self._dropping.index(node.name)
        return torch.from_numpy(keep_factors(math.prod(shape), *self.random, layer, probability)).reshape(shape)

    def _attention(self, node: torch.fx.Node, arguments: list[Any], scale: float | None, training: bool) -> Tensor:
        q, k, v, mask, probability = arguments
        assert mask is None or bool(mask.all())
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        probabilities = scores.softmax(-1)
        return (
            probabilities * self._factors(node, probability, probabilities.shape) if training else probabilities
        ) @ v


def _drops(node: torch.fx.Node) -> bool:
    if str(node.target) in _DROPOUT:
        return float(node.args[1]) > 0.0  # type: ignore[arg-type]  # the probability
    return str(node.target) == _ATTENTION and len(node.args) > 4 and float(node.args[4]) > 0.0  # type: ignore[arg-type]


class TokenReference:
    """Trains block `index` (1-based) of `module` as PyTorch does, from `weights` by a bundle's names."""

    def __init__(
        self,
        module: nn.Module,
        program: torch.export.ExportedProgram,
        cut: CutModel,
        partition: Partition,
        index: int,
        weights: dict[str, Tensor],
        *,
        optimizer: MakeOptimizer,
        loss: LossFunction = functional.cross_entropy,
        clip_norm: float = 0.0,
    ) -> None:
        self.module = module
        module.load_state_dict({name: weights[name] for name in module.state_dict()})
        self.runner = DroppingRunner(module, program)
        block = partition.blocks[index - 1]
        units = cut.units[block.first_unit : block.last_unit + 1]
        self.start, self.end, self.head = units[0].input, units[-1].output, cut.head.input
        names = [f"output_module.block{later.index}.weight" for later in partition.blocks[index:]]
        self.stand_ins = {name: nn.Parameter(weights[name].clone()) for name in names}
        trained = {name for unit in (*units, cut.head) for name in unit.tensors}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in trained)
        self.trained = [*(p for p in module.parameters() if p.requires_grad), *self.stand_ins.values()]
        self.optimizer, self.loss, self.clip_norm = optimizer(self.trained), loss, clip_norm

    def step(self, inputs: Tensor, labels: Tensor, rate: float, random: tuple[int, int]) -> float:
        """One step; returns the loss before the update."""
        self.runner.random = random
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(self.logits(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self.trained, self.clip_norm)
        self.optimizer.step()
        return float(loss.detach())

    def logits(self, inputs: Tensor) -> Tensor:
        """Of the block with its output module, in training mode."""
        with torch.no_grad():
            x = self.runner.run(self.runner.input, self.start, inputs, training=False)
        x = self.runner.run(self.start, self.end, x, training=True)
        for weight in self.stand_ins.values():
            x = functional.linear(x, weight)
        return self.runner.run(self.head, None, x, training=True)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the bundle's names."""
        return {**self.module.state_dict(), **{name: p.detach() for name, p in self.stand_ins.items()}}
