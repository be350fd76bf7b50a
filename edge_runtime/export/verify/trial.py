"""One comparison of a program with PyTorch, on random data and weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from device_profiles.contract import (
    HYPERPARAMETERS_INPUT,
    IGNORED_LABEL,
    IMAGES_INPUT,
    LABELS_INPUT,
    optimizer_state_name,
)
from device_profiles.manifest import Loss
from edge_runtime.export.capture.capture import capture
from edge_runtime.export.cut.rows import rows_of
from edge_runtime.export.ir.builder import StepBuilder
from edge_runtime.export.ir.graph import StepGraph, Value
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators import emit_layer
from edge_runtime.export.plan.arena import ArenaPlan, plan_arena
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.step.train_step import build_evaluation
from edge_runtime.export.verify.differences import Verdict, behind, unlike
from edge_runtime.export.verify.inputs import random_inputs
from edge_runtime.export.verify.programs import MOMENTUM, Native, undropped
from edge_runtime.export.verify.reference import Step, evaluated, settle, trained_step

_IGNORED = 4
"""Of so many positions of an example one has a label that does not count."""
_FORWARD = "the model's own forward"


class Trial:
    """One comparison on random data; the module has the weights that both sides are run with."""

    def __init__(self, module: nn.Module, source: BlockModel, loss: Loss, seed: int) -> None:
        self._module, self._source, self._loss = module, source, loss
        generator = torch.Generator().manual_seed(seed)
        self._inputs, self._others = (random_inputs(source, generator) for _ in range(2))
        if loss.name == "mse":
            self._targets = torch.randn((source.batch, source.classes), generator=generator)
        else:
            labels = (source.batch,) if source.positions is None else (source.batch, source.positions)
            self._targets = torch.randint(0, source.classes, labels, generator=generator)
            if source.positions is not None:
                self._targets[:, ::_IGNORED] = IGNORED_LABEL
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        self._weights = state | source.constants
        self.loss_distance = 0.0

    def verdict(self, planned: tuple[StepGraph, ArenaPlan], agreed: set[str]) -> str | None:
        """What differs, in words; None where nothing does.

        `agreed` names the parameters whose gradients were right in other trials, and gains those that are in this one.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            return self._trained(planned, agreed) or self._evaluated()

    def _trained(self, planned: tuple[StepGraph, ArenaPlan], agreed: set[str]) -> str | None:
        reference = self._reference()
        self._restore()
        if unlike(reference.again, reference.logits):
            return (
                "the model does not put out the same twice for the same input in training; it draws random numbers "
                "(numpy, random; make their probability, such as mask_time_prob, 0), or forward changes what it reads"
            )
        given = {LABELS_INPUT: self._targets, HYPERPARAMETERS_INPUT: torch.tensor([0.0, MOMENTUM, 0.0, 0.0])}
        native = Native(*planned, self._folder, self._weights | given)
        loss = native.run(self._inputs)[0].reshape(())
        self.loss_distance = abs(float(loss) - reference.loss) / max(abs(reference.loss), 1e-12)
        trained = {value.name for value in planned[0].state}
        gradients = {
            name: native.buffer(optimizer_state_name("momentum", name))
            for name in trained
            if optimizer_state_name("momentum", name) in trained
        }
        aliases = self._source.aliases
        gradients |= {alias: gradients[name] for alias, name in aliases.items() if name in gradients}
        read = {name for layer in self._layers for name in layer.tensors}
        statistics = {  # but for those of layers that nothing follows from
            name: native.buffer(aliases.get(name, name)) if aliases.get(name, name) in trained else self._weights[name]
            for name in reference.statistics
            if name in self._weights and aliases.get(name, name) in read
        }
        verdict = Verdict(reference, self._double)
        if verdict.loss(loss):
            place = self._first_output(reference.outputs, training=True)
            return f"{place} differs from PyTorch in training, the loss by {verdict.share}"
        name = verdict.gradient(gradients, self._order(trained), agreed)
        if name is not None:
            module_name = self._first_output(reference.outputs, training=True)
            if module_name != _FORWARD:
                return f"{module_name} differs from PyTorch in training, the gradient of '{name}' by {verdict.share}"
            place = behind(self._layers, name, verdict.good)
            return f"the gradient of '{name}' differs from PyTorch's by {verdict.share}, {place}"
        name = verdict.statistic(statistics)
        if name is not None:
            return f"'{name}' differs from PyTorch's by {verdict.share} after a step"
        return None

    def _reference(self, *, double: bool = False) -> Step:
        return trained_step(
            self._module, self._inputs, self._targets, self._loss, double=double, arranged=self._arranged
        )

    def _arranged(self, logits: Tensor) -> Tensor:
        return logits if self._source.positions is None else rows_of(logits, self._source.classes)

    def _restore(self) -> None:
        """The tensors as they were before PyTorch's step."""
        with torch.no_grad():
            for name, tensor in self._module.state_dict(keep_vars=True).items():
                tensor.data = tensor.data.to(self._weights[name].dtype)
                tensor.copy_(self._weights[name])

    def _double(self) -> Step | None:
        """The same step in float64; None where the model cannot compute in it."""
        try:
            return self._reference(double=True)
        except Exception:  # a constant of float32 in the user's forward, say
            return None
        finally:
            self._restore()

    @property
    def _layers(self) -> list[Layer]:
        units = (*self._source.cut.units, self._source.cut.head)
        return [layer for unit in units for layer in unit.layers]

    def _order(self, trained: set[str]) -> list[str]:
        """The trained parameters from the model's end on."""
        names = [name for layer in self._layers for name in layer.tensors if name in trained]
        return list(dict.fromkeys(reversed(names)))

    def _evaluated(self) -> str | None:
        """What differs in evaluation; with running statistics of the data where it does with random ones, with which
        activations may grow from layer to layer until nothing but rounding is left."""
        if self._evaluation_difference() is None:
            return None
        settle(self._module, self._inputs)
        self._weights |= {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}
        return self._evaluation_difference()

    def _evaluation_difference(self) -> str | None:
        outputs: dict[str, Tensor] = {}
        expected = self._arranged(evaluated(self._module, self._inputs, outputs))
        batch = self._source.batch
        mixed = self._inputs.clone()
        mixed[batch // 2 :] = self._others[batch // 2 :]
        if batch > 1 and unlike(self._arranged(evaluated(self._module, mixed))[: batch // 2], expected[: batch // 2]):
            return (
                "in eval() mode the model's result for one example follows from others of the batch, or is another one "
                "every time"
            )
        graph = build_evaluation(
            units=self._source.cut.units,
            stand_ins=(),
            head=self._source.cut.head,
            shapes=self._source.cut.shapes,
            tensor_shapes=self._source.own_shapes,
            rows=max(1, batch // 2),
            input_dtype=self._source.input_dtype,
        )
        (logits,) = Native(graph, plan_arena(graph), self._folder, self._weights).run(self._inputs)
        if self._source.log_probabilities:
            logits = logits.log_softmax(-1)
        if not unlike(logits, expected):
            return None
        place = self._first_output(outputs, training=False)
        return (
            f"{place} differs from PyTorch in evaluation; forward may do something else there (if self.training), "
            "or eval() may be overridden"
        )

    def _first_output(self, outputs: dict[str, Tensor], *, training: bool) -> str:
        """The first module whose result is another one, by a program that puts out every layer's."""
        source = self._source
        captured = capture(
            self._module, batch=source.batch, input_shape=source.input_shape, input_dtype=source.input_dtype
        )
        last = {layer.module: layer for layer in captured.layers}
        asked = [name for name in outputs if name in last and last[name].shape == tuple(outputs[name].shape)]
        builder = StepBuilder(
            tensor_shapes=source.own_shapes | {n: tuple(v.shape) for n, v in captured.constants.items()},
            training=training,
            differentiates=False,
            fixed=captured.fixed,
        )
        layers = [undropped(layer) for layer in captured.layers]
        images = Value(IMAGES_INPUT, captured.input_shape, "data", source.input_dtype)
        builder.graph.data.append(images)
        values = {captured.input_name: images}
        for layer in layers:
            values[layer.output] = emit_layer(builder, layer, values)
        builder.graph.outputs.extend(values[last[name].output] for name in asked)
        if asked:
            native = Native(builder.graph, plan_arena(builder.graph), self._folder, self._weights | captured.constants)
            for name, found in zip(asked, native.run(self._inputs), strict=True):
                if unlike(found, outputs[name]):
                    return f"module '{name}'"
        return _FORWARD
