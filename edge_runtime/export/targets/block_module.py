"""One block as PyTorch trains it: prefix in inference mode, block in training mode, output module.

Cut from the graph that `torch.export` captures, so that it is there for every model that can be exported: the program
for ExecuTorch's own training module and the references of tests and benchmarks are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import fx, nn

from device_profiles.contract import IMAGES_INPUT, LABELS_INPUT
from device_profiles.errors import UsageError
from device_profiles.model import Partition
from device_profiles.settings import Setting
from edge_runtime.export.capture.tracing import exported
from edge_runtime.export.cut.rows import append_rows
from edge_runtime.export.passes.views import BY_TOKEN
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.targets.stand_in_graph import append_stand_in

_aten = torch.ops.aten
_MODES = frozenset({"training", "train"})
"""Arguments by which operators such as batch_norm and dropout are told the mode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockGraphs:
    """Graphs of ATen operators whose tensors are attributes, named as in the `state_dict`.

    Attributes:
        prefix: images to the block's input, in inference mode; None for the first block.
        trained: the block's input to the logits, in training mode.
        tensors: every tensor that the two read, buffers as plain tensors.
    """

    prefix: fx.Graph | None
    trained: fx.Graph
    tensors: dict[str, torch.Tensor | nn.Parameter]

    def frozen_names(self) -> set[str]:
        """Tensors that the prefix reads."""
        return set() if self.prefix is None else _attributes(self.prefix)

    def trained_names(self) -> set[str]:
        """Parameters that the step updates."""
        names = _attributes(self.trained)
        return {name for name in names if _is_trained(self.tensors[name])}


def block_graphs(module: nn.Module, source: BlockModel, partition: Partition, index: int) -> BlockGraphs:
    """Cut block `index` (1-based) out of `module`, which `source` was made of; stand-ins start at zero."""
    captured = CapturedModule(module, source)
    units = source.cut.units
    block = partition.blocks[index - 1]
    start = units[block.first_unit].input
    prefix = None
    if block.first_unit > 0:
        prefix = fx.Graph()
        images = prefix.placeholder(IMAGES_INPUT)
        prefix.output(captured.copy(prefix, source.cut.input, start, images, training=False))
    trained = fx.Graph()
    x = trained.placeholder(IMAGES_INPUT if prefix is None else "features")
    x = captured.copy(trained, start, units[block.last_unit].output, x, training=True)
    tensors = captured.tensors
    shapes = source.stand_in_shapes(partition)
    for stand_in in source.stand_ins(partition, index):
        tensors[stand_in.name] = nn.Parameter(torch.zeros(shapes[stand_in.name]))
        x = append_stand_in(trained, stand_in, x)
    trained.output(captured.copy(trained, source.cut.head.input, source.cut.head.output, x, training=True))
    read = _attributes(trained) | (set() if prefix is None else _attributes(prefix))
    return BlockGraphs(prefix=prefix, trained=trained, tensors={name: tensors[name] for name in sorted(read)})


def joined(graphs: BlockGraphs) -> fx.GraphModule:
    """One module, images to logits, whose trainable parameters are exactly the ones that the step updates."""
    graph = fx.Graph()
    graph.output(_join(graph, graphs, graph.placeholder(IMAGES_INPUT)))
    return fx.GraphModule(_tensors(graphs), graph)


def joined_with_loss(graphs: BlockGraphs) -> fx.GraphModule:
    """The same with the loss behind it: (images, labels) to the mean cross-entropy."""
    graph = fx.Graph()
    images, labels = graph.placeholder(IMAGES_INPUT), graph.placeholder(LABELS_INPUT)
    logits = _join(graph, graphs, images)
    graph.output(graph.call_function(_aten.cross_entropy_loss.default, (logits, labels)))
    return fx.GraphModule(_tensors(graphs), graph)


def _join(graph: fx.Graph, graphs: BlockGraphs, x: fx.Node) -> fx.Node:
    for part in (graphs.prefix, graphs.trained):
        if part is not None:
            copied = graph.graph_copy(part, {next(iter(part.nodes)): x})
            assert isinstance(copied, fx.Node)  # both end with one tensor
            x = copied
    return x


def _tensors(graphs: BlockGraphs) -> dict[str, torch.Tensor | nn.Parameter]:
    trained = graphs.trained_names()
    return {
        name: nn.Parameter(value.detach(), requires_grad=name in trained) if isinstance(value, nn.Parameter) else value
        for name, value in graphs.tensors.items()
    }


def _attributes(graph: fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "get_attr"}


class CapturedModule:
    """The whole model's graph in training mode, from which ranges between two activations are copied."""

    def __init__(self, module: nn.Module, source: BlockModel) -> None:
        program = exported(module, batch=source.batch, input_shape=source.input_shape, input_dtype=source.input_dtype)
        signature = program.graph_signature
        self._nodes = {node.name: node for node in program.graph.nodes}
        self._source = source
        self._logits = str(signature.user_outputs[0])
        self._state = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.tensors: dict[str, torch.Tensor | nn.Parameter] = {**program.state_dict, **program.constants}

    def copy(self, graph: fx.Graph, first: str, last: str, x: fx.Node, *, training: bool) -> fx.Node:
        """Append all that lies behind activation `first`, which is `x` in `graph`, up to `last`; returns `last`."""
        several = self._source.positions is not None and last == self._source.cut.head.output
        start, end = self._node(first), self._node(self._logits if several else last)
        copied = {start: _by_head(graph, start, x) if first.endswith(BY_TOKEN) else x}
        for node in self._between(start, end, counting=training):
            name = self._state.get(node.name)
            if name is not None:
                copied[node] = graph.get_attr(name)
                continue
            copied[node] = graph.node_copy(node, lambda argument: copied[argument])
            if not training:
                _set_inference(copied[node])
        if several:  # as programs put them out
            return append_rows(graph, copied[end], tuple(end.meta["val"].shape), self._source.classes)
        return _by_token(graph, end, copied[end]) if last.endswith(BY_TOKEN) else copied[end]

    def _node(self, activation: str) -> fx.Node:
        """What leaves an activation; raises UsageError for one that only this runtime's own order of rows has."""
        node: fx.Node | None = self._nodes.get(activation.removesuffix(BY_TOKEN))
        if node is None:
            raise UsageError(
                f"the blocks are cut at '{activation}', which PyTorch's graph does not have",
                remedy=("choose other ones with ", Setting("partition")),
            )
        return node

    def _between(self, first: fx.Node, last: fx.Node, *, counting: bool) -> Iterable[fx.Node]:
        """What `last` needs, and what counts BatchNorm's batches on the way, in the order of execution."""
        order = list(self._nodes.values())
        start, end = order.index(first), order.index(last)
        unread = [node for node in order[start:end] if node.op == "call_function" and not node.users]
        counters = unread if counting else []
        needed: set[fx.Node] = set()
        waiting = [last, *counters]
        while waiting:
            node = waiting.pop()
            if node not in needed and node is not first:
                needed.add(node)
                waiting += node.all_input_nodes
        return [node for node in order if node in needed]


def _by_head(graph: fx.Graph, node: fx.Node, x: fx.Node) -> fx.Node:
    """Attention's output [batch, heads, tokens, width], from what a block keeps of it (see `views.py`)."""
    batch, heads, tokens, width = node.meta["val"].shape
    x = graph.call_function(_aten.view.default, (x, [batch, tokens, heads, width]))
    return graph.call_function(_aten.transpose.int, (x, 1, 2))


def _by_token(graph: fx.Graph, node: fx.Node, x: fx.Node) -> fx.Node:
    """The other way: [batch, tokens, heads * width]."""
    batch, heads, tokens, width = node.meta["val"].shape
    x = graph.call_function(_aten.transpose.int, (x, 1, 2))
    return graph.call_function(_aten.reshape.default, (x, [batch, tokens, heads * width]))


def _is_trained(tensor: torch.Tensor | nn.Parameter) -> bool:
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad


def _set_inference(node: fx.Node) -> None:
    """Switch a copied call to inference mode."""
    if node.op != "call_function":
        return
    schema = getattr(node.target, "_schema", None)
    if not isinstance(schema, torch.FunctionSchema):  # `getitem`, which takes one of several results
        return
    for position, argument in enumerate(schema.arguments):
        if argument.name in _MODES:
            if position < len(node.args):
                node.update_arg(position, False)
            else:
                node.update_kwarg(argument.name, False)
