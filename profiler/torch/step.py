"""`python -m profiler.torch.step SPEC`: training steps of one block in PyTorch eager, in a process of its own.

SPEC is the JSON of a `StepSpec`. Prints one JSON object with the keys of `profl-edge bench --json` that the profiler
reads, and what was counted: unique storages that autograd saved, gradients, optimizer state. This is the only part of
the profiler that imports torch, and nothing but torch.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from profiler.facts.gpus import process_bytes
from profiler.facts.own_memory import peak_resident_bytes, resident_bytes
from profiler.torch.meter import ModelChoice
from profiler.torch.spec import StepSpec

_LEARNING_RATE = 0.05
_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4


class BlockStep:
    """Block of a model as PyTorch trains it: prefix without gradients, block, output module, SGD with momentum."""

    def __init__(self, spec: StepSpec, module: nn.Module) -> None:
        self._spec = spec
        self._device = torch.device(spec.device)
        graph = fx.symbolic_trace(module)
        prefix, active, head = split_at(graph, set(spec.prefix_tensors), set(spec.active_tensors))
        self.prefix = prefix.eval().to(self._device).requires_grad_(False)
        self.active = active.train().to(self._device)
        self.head = head.train().to(self._device)
        self.stand_ins = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
            for before, after, stride in spec.stand_ins
        ).to(self._device)
        self.parameters = [*self.active.parameters(), *self.head.parameters(), *self.stand_ins.parameters()]
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=_LEARNING_RATE, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY
        )
        self.images = torch.randn(spec.batch, *spec.input_shape, device=self._device)
        self.labels = torch.arange(spec.batch, device=self._device) % spec.classes

    def run(self) -> tuple[float, float]:
        """One step; seconds of all of it and of the prefix."""
        started = self._now()
        with torch.no_grad():
            x = self.prefix(self.images)
        prefix_seconds = self._now() - started if self._spec.prefix_tensors else 0.0
        loss = self._loss(x)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.optimizer.step()
        return self._now() - started, prefix_seconds

    def count_saved(self) -> int:
        """Bytes of unique storages that a forward pass saves for the backward, parameters and images left out."""
        known = {storage_of(t) for t in [*self.parameters, *self._buffers(), self.images]}
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if storage_of(tensor) not in known:
                saved[storage_of(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.no_grad():
            x = self.prefix(self.images)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            # While the loss lives everything saved does, so that no address is given out twice.
            loss = self._loss(x)
        del loss
        return sum(saved.values())

    def counted(self, activations: int) -> dict[str, int]:
        """Bytes by what they are, after at least one step."""
        state = [v for s in self.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        frozen = [*self.prefix.parameters(), *self.prefix.buffers()]
        return {
            "parameters_bytes": bytes_of([*self.parameters, *self._buffers()]),
            "gradients_bytes": bytes_of([p.grad for p in self.parameters if p.grad is not None]),
            "optimizer_state_bytes": bytes_of(state),
            "activations_bytes": activations,
            "frozen_bytes": bytes_of(frozen),
            "staging_bytes": bytes_of([self.images, self.labels]),
        }

    def _loss(self, x: Tensor) -> Tensor:
        x = self.active(x)
        for stand_in in self.stand_ins:
            x = stand_in(x)
        return functional.cross_entropy(self.head(x), self.labels)

    def _buffers(self) -> list[Tensor]:
        return [*self.active.buffers(), *self.head.buffers()]

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def split_at(
    graph: fx.GraphModule, prefix: set[str], active: set[str]
) -> tuple[fx.GraphModule, fx.GraphModule, fx.GraphModule]:
    """Prefix, active block and classifier head; the blocks behind the active one are left out.

    What has no tensors of its own (ReLU, pooling, additions) belongs to the part before it.
    """
    parts: dict[str, int] = {}
    current, behind, head = 0, 3, 2
    for node in graph.graph.nodes:
        names = set(_tensor_names(graph, node))
        if current == head or _head_begins(graph, node):
            current = head
        elif names:
            current = 0 if names & prefix else 1 if names & active else behind
        parts[node.name] = current
    if not prefix:
        parts = {name: max(part, 1) for name, part in parts.items()}
    return tuple(_extract(graph, parts, number) for number in range(3))  # type: ignore[return-value]  # three of them


def _extract(graph: fx.GraphModule, parts: dict[str, int], number: int) -> fx.GraphModule:
    """The nodes of one part; its input is the one value that crosses into it, its output the one that leaves."""
    cut = fx.Graph()
    image = cut.placeholder("x")
    placed: dict[fx.Node, fx.Node] = {}
    last: fx.Node = image
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "output") or parts[node.name] != number:
            continue
        placed[node] = last = cut.node_copy(node, lambda argument: placed.get(argument, image))
    cut.output(last)
    return fx.GraphModule(graph, cut)


def _tensor_names(graph: fx.GraphModule, node: fx.Node) -> Iterator[str]:
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        yield from (f"{node.target}.{name}" for name in module.state_dict())
    elif node.op == "get_attr":
        yield str(node.target)


def _head_begins(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Global pooling opens the classifier: all that follows it is the head's."""
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d)
    if node.op == "call_function":
        return node.target is functional.adaptive_avg_pool2d or node.target is torch.mean
    return node.op == "call_method" and node.target == "mean"


def storage_of(tensor: Tensor) -> int:
    """Address of a tensor's storage, which its views share."""
    return tensor.untyped_storage().data_ptr()


def bytes_of(tensors: list[Tensor]) -> int:
    """Bytes of unique storages."""
    return sum({storage_of(t): t.untyped_storage().nbytes() for t in tensors}.values())


def create_module(spec: StepSpec | ModelChoice) -> nn.Module:
    """The built-in model or the user's, with the tensors that the spec names."""
    from edge_runtime.export.models.factory import create_model, is_own

    width = None if is_own(spec.model) else spec.width
    return create_model(spec.model, width=width, classes=spec.classes, input_shape=spec.input_shape)


def main() -> int:
    """Run the steps and print the report."""
    spec = msgspec.json.decode(sys.argv[1], type=StepSpec)
    torch.set_num_threads(spec.threads)
    accelerator = _accelerator(spec)
    base = accelerator["base_bytes"]() if accelerator else resident_bytes()
    step = BlockStep(spec, create_module(spec))
    activations = step.count_saved()
    first = time.monotonic()
    took = [step.run() for _ in range(spec.warmup_steps + spec.steps)]
    first_step = (first, first + took[0][0])
    timed = took[spec.warmup_steps :]
    peak = peak_resident_bytes()
    report: dict[str, Any] = {
        "program": spec.program,
        "base_bytes": base,
        "measured_peak_bytes": peak,
        "step_seconds_median": statistics.median(total for total, _ in timed),
        "step_seconds_minimum": min(total for total, _ in timed),
        "step_seconds_maximum": max(total for total, _ in timed),
        "prefix_seconds": statistics.median(prefix for _, prefix in timed),
        "first_step": first_step,
        "counted": step.counted(activations),
    }
    if accelerator:
        report |= accelerator["report"]() | {"host_peak_bytes": peak}
    print(json.dumps(report))
    return 0


def _accelerator(spec: StepSpec) -> dict[str, Callable[[], Any]] | None:
    """How the accelerator's bytes are asked for; None on the CPU.

    The base is what the driver charges to a process that has a context and no tensor; without NVML it is not known
    and counted as zero, and the peak is then what the allocator reserved.
    """
    if spec.device == "cpu":
        return None
    torch.cuda.init()  # type: ignore[no-untyped-call]  # torch's own
    torch.zeros(1, device=spec.device)
    torch.cuda.synchronize()

    def report() -> dict[str, Any]:
        reserved = torch.cuda.max_memory_reserved()
        charged = process_bytes(os.getpid())
        return {
            "measured_peak_bytes": reserved if charged is None else max(charged, reserved),
            "accelerator_allocated_bytes": torch.cuda.max_memory_allocated(),
            "accelerator_reserved_bytes": reserved,
            "accelerator_process_bytes": charged,
        }

    def base() -> int:
        charged = process_bytes(os.getpid())
        return 0 if charged is None else max(charged - torch.cuda.memory_reserved(), 0)

    return {"base_bytes": base, "report": report}


if __name__ == "__main__":
    sys.exit(main())
