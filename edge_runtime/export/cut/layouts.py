"""Where an activation keeps its features: channels first, as convolutions want them, or last, as linear layers do.

Shapes alone do not tell. The nearest layer does that treats one dimension as features, on either side of an activation,
with nothing but element-by-element layers between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from edge_runtime.export.ir.layers import Layer

_FIRST = frozenset(
    {
        "conv2d",
        "conv_transpose2d",
        "batch_norm",
        "group_norm",
        "max_pool2d",
        "average_pool2d",
        "global_average_pool",
        "resample2d",
    }
)
_LAST = frozenset({"linear", "layer_norm", "embedding", "attention"})
_ELEMENTWISE = frozenset({"activation", "gelu", "affine", "dropout", "add", "arithmetic"})


class Layouts:
    """Of the activations of one model."""

    def __init__(self, layers: Iterable[Layer], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._beside: dict[str, list[Layer]] = defaultdict(list)
        for layer in layers:
            for name in (*layer.inputs, layer.output):
                self._beside[name].append(layer)

    def is_last(self, name: str) -> bool:
        """Whether an activation keeps its features in its last dimension.

        Where no layer tells, images [batch, channels, height, width] have them first, all others last.
        """
        shape = self._shapes[name]
        seen, waiting = {name}, [name]
        for name in waiting:
            for layer in self._beside[name]:
                if layer.kind in _FIRST or layer.kind in _LAST:
                    return layer.kind in _LAST
                if layer.kind not in _ELEMENTWISE:
                    continue
                for other in (*layer.inputs, layer.output):
                    if other not in seen and self._shapes[other] == shape:
                        seen.add(other)
                        waiting.append(other)
        return len(shape) != 4
