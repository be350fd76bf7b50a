"""Accumulates the operations of one program: values, the tape of gradient rules, recomputation and updates.

What the backward pass needs is kept as little as possible. A value is either *kept* (outputs of convolutions and linear
layers, statistics of the batch) or *derived*: it follows from kept ones element by element, and is computed again just
before the backward pass needs it. Kept values that are named in `recompute` are computed again as well: once, or with
`forgetful` at every use, which costs time and holds them no longer than they are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from device_profiles.contract import RANDOM_INPUT
from edge_runtime.export.ir.graph import Argument, ElementType, Operation, Pairs, StepGraph, Value, ValueRole
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.ir.optimizer import StepOptimizer

Shapes = dict[str, tuple[int, ...]]
Values = dict[str, Value]
GradientRule = Callable[[Value], Pairs]
"""Given the gradient of a layer's output, emits operations and returns the gradients of its inputs."""

ADDS_TO: dict[str, int] = {"conv2d_input_grad": 2, "strided_copy_backward": 3}
"""Operators whose argument at this place is added to their first output, so that a sum of gradients costs no tensor."""


@dataclass(slots=True)
class StepBuilder:
    """`tensor_shapes` has every `state_dict` tensor and stand-in; `recompute` names outputs of layers.

    `optimizer` is None where nothing is trained. `tensors` are inputs and mutable
    buffers by name, `frozen` the inputs that are mapped from the weights file: a program may have both of one name,
    such as a trained head and the one it started from. `fixed` names tensors that no training changes: buffers that
    serve as weights, constants, parameters that the user froze.
    """

    tensor_shapes: Shapes
    optimizer: StepOptimizer | None = None
    recompute: frozenset[str] = frozenset()
    forgetful: bool = False
    fixed: frozenset[str] = frozenset()
    graph: StepGraph = field(default_factory=StepGraph)
    training: bool = True
    differentiates: bool = True
    tensors: Values = field(default_factory=dict)
    frozen: Values = field(default_factory=dict)
    differentiable: set[Value] = field(default_factory=set)
    _tape: list[tuple[Value, GradientRule]] = field(default_factory=list)
    _recipes: dict[Value, Callable[[], Value]] = field(default_factory=dict)
    _uses: Counter[Value] = field(default_factory=Counter)
    _pending: dict[Value, Value] = field(default_factory=dict)
    _waiting: Pairs = field(default_factory=list)
    _current: dict[Value, Value] | None = None
    _counter: int = 0

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Layers emitted inside are frozen: no gradient, statistics and weights are inputs of the program."""
        before = self.training, self.differentiates
        self.training = self.differentiates = False
        yield
        self.training, self.differentiates = before

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Layers emitted inside are frozen as in inference, but pass gradients on to what lies before them."""
        before, self.training = self.training, False
        yield
        self.training = before

    @property
    def micro_batches(self) -> int:
        """Executions that make up one step of the optimizer."""
        return self._trainer.micro_batches

    # Values

    def new(
        self, hint: str, shape: tuple[int, ...], role: ValueRole = "temporary", dtype: ElementType = "float32"
    ) -> Value:
        """A fresh value."""
        self._counter += 1
        return Value(f"{hint}_{self._counter}", shape, role, dtype)

    def tensor(self, name: str, role: ValueRole) -> Value:
        """The value of a `state_dict` tensor: a program input when frozen, a mutable buffer otherwise."""
        known, place = (self.frozen, self.graph.inputs) if role == "frozen" else (self.tensors, self.graph.state)
        if name not in known:
            known[name] = Value(name, self.tensor_shapes[name], role)
            place.append(known[name])
        return known[name]

    def weight(self, name: str | None) -> Value | None:
        """A tensor of the layer in hand: trained, or frozen in inference and where it is `fixed`. Ask once a use."""
        if name is None:
            return None
        trained = self.training and name not in self.fixed
        value = self.tensor(name, "parameter" if trained else "frozen")
        if trained:
            self._uses[value] += 1
        return value

    def trains(self, value: Value | None) -> bool:
        """Whether a layer's tensor is there and wants a gradient."""
        return value is not None and value.role == "parameter"

    def statistic(self, name: str | None) -> Value | None:
        """A running statistic: updated in training, frozen in inference."""
        return None if name is None else self.tensor(name, "running_statistic" if self.training else "frozen")

    def random(self) -> Value:
        """What dropout's choices follow from, beside the layer: an input [seed, execution]."""
        if RANDOM_INPUT not in self.tensors:
            self.tensors[RANDOM_INPUT] = Value(RANDOM_INPUT, (2,), "input", "int64")
            self.graph.inputs.append(self.tensors[RANDOM_INPUT])
        return self.tensors[RANDOM_INPUT]

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """The same bytes with another shape."""
        self._counter += 1
        return Value(f"{value.name}_view{self._counter}", shape, value.role, value.dtype, storage=value)

    # Forward, and again in the backward pass

    def derived(self, inputs: tuple[Value, ...], compute: Callable[..., Value]) -> Value:
        """`compute(*inputs)` now; in the backward pass it is computed again wherever it is needed."""
        y = compute(*inputs)
        if self.differentiates:
            self._recipes[y] = lambda: compute(*(self.again(x) for x in inputs))
        return y

    def kept(self, name: str, inputs: tuple[Value, ...], compute: Callable[..., Value]) -> Value:
        """`compute(*inputs)` now, kept for the backward pass; computed again once where `recompute` names it."""
        y = compute(*inputs)
        if self.differentiates and name in self.recompute:

            def recipe() -> Value:
                again = compute(*(self.again(x) for x in inputs))
                if not self.forgetful:
                    self._recipes[y] = lambda: again
                return again

            self._recipes[y] = recipe
            self.graph.recomputed.append(name)
        elif self.differentiates:
            self.graph.kept.append(name)
            if y.role == "temporary":
                y.role = "activation"
        return y

    def kept_or_derived(self, layer: Layer, inputs: tuple[Value, ...], compute: Callable[..., Value]) -> Value:
        """Kept where the layer's attribute `keep` says so (see `kept_sums.py`), else derived."""
        if layer.attributes.get("keep"):
            return self.kept(layer.output, inputs, compute)
        return self.derived(inputs, compute)

    def keep(self, value: Value) -> None:
        """Keep a derived value for the backward pass after all: what follows from it need not go further back."""
        if self._recipes.pop(value, None) is not None and value.storage is None:
            value.role = "activation"

    def again(self, value: Value) -> Value:
        """`value` for the backward pass: itself if it was kept, else computed again here.

        What it follows from by several ways is computed once: where parts of a tensor are joined again, layer after
        layer, it would be twice as much with every layer.
        """
        recipe = self._recipes.get(value)
        if recipe is None:
            return value
        outermost, self._current = self._current, {} if self._current is None else self._current
        try:
            if value not in self._current:
                self._current[value] = recipe()
            return self._current[value]
        finally:
            self._current = outermost

    # Gradients

    def record(self, output: Value, rule: GradientRule) -> Value:
        """Put a layer's gradient rule on the tape; returns `output`. Nothing is recorded in inference."""
        if self.differentiates:
            self._tape.append((output, rule))
            self.differentiable.add(output)
        return output

    def backward(self, output: Value, gradient: Value) -> None:
        """Emit the backward pass from the gradient of `output`, and every update as early as possible."""
        gradients: dict[Value, Value] = {output: gradient}
        for value, rule in reversed(self._tape):
            incoming = gradients.pop(value, None)
            if incoming is None:
                continue
            pairs = [pair for pair in rule(incoming) if pair[0] in self.differentiable]
            for place, (source, contribution) in enumerate(pairs):
                known = gradients.pop(source, None)
                if known is not None:
                    others = [*gradients.values(), *(waiting for _, waiting in pairs[place + 1 :])]
                    contribution = self._sum(known, contribution, others)
                gradients[source] = contribution
        for parameter, waiting in self._pending.items():
            self._finish(parameter, waiting)
        self._pending.clear()
        if self._waiting:
            self._trainer.emit_waiting_updates(self, self._waiting)

    def _sum(self, first: Value, second: Value, others: list[Value]) -> Value:
        """first + second; joined into the operation that computes the second where that can add.

        `others` are gradients that are still to be used.
        """
        operation = self._adding(first, second, others)
        if operation is not None:
            place = ADDS_TO[operation.operator]
            operation.arguments = (*operation.arguments[:place], first, *operation.arguments[place + 1 :])
            return second
        total = self.new("gradient_sum", first.shape)
        self.graph.emit("add", (first, second, False), (total,))
        return total

    def _adding(self, first: Value, second: Value, others: list[Value]) -> Operation | None:
        """The operation that computes `second`, where it may add `first`: that is there already, and nothing else reads
        `second`. An addition in the network hands one gradient to both of its summands."""
        if any(
            second.root is value.root
            for value in (first, *others, *self._pending.values(), *(g for _, g in self._waiting))
        ):
            return None
        for operation in reversed(self.graph.operations):
            if operation.outputs[0] is second:
                place = ADDS_TO.get(operation.operator)
                return operation if place is not None and operation.arguments[place] is None else None
            if any(value.root is first.root for value in operation.writes):
                return None
            if any(value.root is second.root for value in operation.reads):
                return None
        return None

    def gradient_of(self, parameter: Value) -> Value:
        """A fresh value for a parameter's gradient."""
        return self.new(f"{parameter.name}.gradient", parameter.shape, "gradient")

    def gradient_if_trained(self, value: Value | None) -> Value | None:
        """A fresh value for the gradient of a layer's tensor, where it is there and trained."""
        return self.gradient_of(value) if value is not None and self.trains(value) else None

    def update(self, parameter: Value, gradient: Value) -> None:
        """Take one use's gradient of a parameter; the update is emitted when every use has given its own."""
        if parameter in self._pending:
            gradient = self._sum(self._pending.pop(parameter), gradient, [])
        self._uses[parameter] -= 1
        if self._uses[parameter] > 0:
            self._pending[parameter] = gradient
        else:
            self._finish(parameter, gradient)

    def _finish(self, parameter: Value, gradient: Value) -> None:
        """Update a parameter whose gradient is complete: now, or when all are, where the optimizer waits for them."""
        optimizer = self._trainer
        if optimizer.sums_apart:
            gradient = optimizer.add_to_sum(self, parameter, gradient)
        if optimizer.waits:
            self._waiting.append((parameter, gradient))
        else:
            optimizer.emit_update(self, parameter, gradient)

    def fuses_update(self, parameter: Value) -> bool:
        """Whether the gradient of the use in hand can go straight into the update: it is the only one."""
        return self._trainer.fuses_update and self._uses[parameter] == 1 and parameter not in self._pending

    def fused_update(self, operator: str, arguments: tuple[Argument, ...], parameter: Value) -> None:
        """Update a parameter that `fuses_update` with the gradient that `operator` computes from `arguments`."""
        self._trainer.emit_fused_update(self, operator, arguments, parameter)

    @property
    def _trainer(self) -> StepOptimizer:
        assert self.optimizer is not None  # of a program that trains
        return self.optimizer
