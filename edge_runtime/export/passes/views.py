"""Views that cost nothing: layers that only say how bytes are read are folded into those that can read them so.

PyTorch's permute, slice, select, expand and reshape of a tensor share its bytes. Here every activation is followed back
to the *base* whose bytes it shows. Attention reads queries, keys and values as views of the activation that the fused
projection left; a linear layer works on the rows of its base whatever their order; only what other layers read is made
real by a copy, where it first is read.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from edge_runtime.export.capture.capture import CapturedModel
from edge_runtime.export.ir.layers import Layer
from edge_runtime.export.operators.attention import StridedView
from edge_runtime.export.operators.view import VIEW_KINDS, seen_through, views_by_example

BY_TOKEN = ".by_token"
"""Ends the name of attention's output where it lies as [batch, tokens, heads x width]."""


def fold_views(model: CapturedModel) -> CapturedModel:
    """The model without views that nobody needs; `shapes` gains the activations that are new."""
    return _Folding(model).run()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """An activation as a view of `base`: a meta tensor over the base's bytes with the same elements in the same order.

    Dimension i of the activation is the product of `groups[i]` neighbouring dimensions of `view`, which cannot always
    be one dimension with one stride.
    """

    base: str
    view: torch.Tensor
    groups: tuple[int, ...]

    @classmethod
    def of(cls, base: str, view: torch.Tensor) -> _Seen:
        return cls(base=base, view=view, groups=(1,) * view.dim())

    @classmethod
    def whole(cls, name: str, shape: tuple[int, ...]) -> _Seen:
        return cls.of(name, torch.empty(shape, device="meta"))

    @property
    def shape(self) -> tuple[int, ...]:
        """The activation's."""
        sizes = iter(self.view.shape)
        return tuple(math.prod(itertools.islice(sizes, count)) for count in self.groups)

    @property
    def is_dense(self) -> bool:
        """Whether it is all of the base in its order."""
        whole = self.view.untyped_storage().nbytes() // self.view.element_size()
        return self.view.is_contiguous() and self.view.storage_offset() == 0 and self.view.numel() == whole

    def through(self, layer: Layer) -> _Seen | None:
        """What a view layer shows of it; None where that takes a copy."""
        if layer.kind == "reshape":
            return self._regrouped(layer.shape)
        if layer.kind == "permute":
            starts = list(itertools.accumulate(self.groups, initial=0))
            dims = layer.attributes["dims"]
            order = [at for d in dims for at in range(starts[d], starts[d] + self.groups[d])]
            return replace(self, view=self.view.permute(order), groups=tuple(self.groups[d] for d in dims))
        view = _viewed(self.view, self.shape)
        seen = None if view is None else seen_through(layer, view)
        return None if seen is None else _Seen.of(self.base, seen)

    def _regrouped(self, shape: tuple[int, ...]) -> _Seen | None:
        view = _viewed(self.view, shape)
        if view is not None:
            return _Seen.of(self.base, view)
        factors = _common_factors(tuple(self.view.shape), shape)
        view = None if factors is None else _viewed(self.view, tuple(itertools.chain(*factors)))
        if factors is None or view is None:
            return None
        return replace(self, view=view, groups=tuple(len(group) for group in factors))


def _viewed(view: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor | None:
    try:
        return view.view(shape)
    except RuntimeError:
        return None


def _common_factors(sizes: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, ...]] | None:
    """Each extent of `shape` as a product of factors that also make up `sizes` one after the other; None without."""
    left = [size for size in sizes if size != 1]
    groups = []
    for extent in shape:
        group = []
        while extent != 1:
            if not left:
                return None
            factor = min(extent, left[0])
            if extent % factor or left[0] % factor:
                return None
            group.append(factor)
            extent //= factor
            left[0] //= factor
            if left[0] == 1:
                left.pop(0)
        groups.append(tuple(group) or (1,))
    return None if left else groups


class _Folding:
    def __init__(self, model: CapturedModel) -> None:
        self._model = model
        self._shapes = dict(model.shapes)
        self._seen = {model.input_name: _Seen.whole(model.input_name, model.input_shape)}
        self._layers: list[Layer] = []
        self._real = {model.input_name}
        self._views: dict[str, Layer] = {}

    def run(self) -> CapturedModel:
        for layer in self._model.layers:
            if layer.kind in VIEW_KINDS and self._look(layer):
                continue
            if layer.kind == "attention":
                self._attend(layer)
            elif layer.kind != "linear" or not self._project_rows(layer):
                for name in layer.inputs:
                    self._make_real(name)
                self._add(layer)
        self._make_real(self._model.layers[-1].output)
        return replace(self._model, layers=tuple(self._layers), shapes=self._shapes)

    def _add(self, layer: Layer) -> None:
        self._layers.append(layer)
        self._shapes[layer.output] = layer.shape
        self._real.add(layer.output)
        self._seen[layer.output] = _Seen.whole(layer.output, layer.shape)

    def _look(self, layer: Layer) -> bool:
        """Follow a view; False where the layer moves elements in any case."""
        (source,) = layer.inputs
        seen = self._seen[source].through(layer)
        if seen is None:
            self._make_real(source)
            seen = _Seen.whole(source, self._shapes[source]).through(layer)
            if seen is None:
                return False
        self._seen[layer.output] = seen
        self._views[layer.output] = layer
        return True

    def _make_real(self, name: str) -> None:
        """Add the layer that gives `name` bytes of its own, unless it has them."""
        if name in self._real:
            return
        seen, layer = self._seen[name], self._views[name]
        made = replace(layer, kind="reshape", inputs=(seen.base,), attributes={})
        if layer.kind in ("permute", "crop") and layer.inputs == (seen.base,):
            made = layer
        elif not seen.is_dense:
            made = replace(
                made,
                kind="view",
                attributes={
                    "sizes": tuple(seen.view.shape),
                    "strides": tuple(seen.view.stride()),
                    "offset": seen.view.storage_offset(),
                    "by_example": views_by_example(seen.view, seen.shape, self._shapes[seen.base]),
                },
            )
        self._layers.append(made)
        self._real.add(name)
        self._seen[name] = _Seen.whole(name, seen.shape)

    # Linear layers

    def _project_rows(self, layer: Layer) -> bool:
        """Put a linear layer to work on its input's base, where it reads all rows of it in another order."""
        seen = self._seen[layer.inputs[0]]
        base, width, outputs = self._shapes[seen.base], seen.shape[-1], layer.shape[-1]
        if layer.inputs[0] in self._real or seen.is_dense or len(layer.inputs) > 1:
            return False
        ordered = _viewed(seen.view, (*seen.view.shape[: -seen.groups[-1]], width))
        if ordered is None or not _permutes_rows(ordered, width, math.prod(base)):
            return False
        rows = base if base[-1] == width else (*_leading(base, width), width)
        source = seen.base
        if rows != base:
            source = f"{seen.base}.rows{width}"
            if source not in self._real:
                self._add(replace(layer, kind="reshape", inputs=(seen.base,), output=source, shape=rows, tensors=()))
        output = f"{layer.output}.rows"
        self._add(replace(layer, inputs=(source,), output=output, shape=(*rows[:-1], outputs)))
        strides = [stride // width * outputs for stride in ordered.stride()[:-1]]
        whole = torch.empty((*rows[:-1], outputs), device="meta")
        view = whole.as_strided((*ordered.shape[:-1], outputs), (*strides, 1))
        self._seen[layer.output] = _Seen(base=output, view=view, groups=(*seen.groups[:-1], 1))
        self._views[layer.output] = layer
        return True

    # Attention

    def _attend(self, layer: Layer) -> None:
        """Give attention views to read, and let it write [batch, tokens, heads x width], which most models ask for."""
        layer = self._with_sources(layer)
        batch, heads, queries, _, _, width = layer.attributes["sizes"]
        stored = (batch, queries, heads * width)
        output = f"{layer.output}{BY_TOKEN}"
        strides = (queries * heads * width, width, heads * width)
        attributes = {**layer.attributes, "out_view": StridedView(offset=0, strides=strides)}
        self._add(replace(layer, output=output, shape=stored, attributes=attributes))
        view = torch.empty(stored, device="meta").view(batch, queries, heads, width).transpose(1, 2)
        self._seen[layer.output] = _Seen.of(output, view)
        self._views[layer.output] = replace(layer, tensors=(), attributes={})

    def _with_sources(self, layer: Layer) -> Layer:
        names, mask = list(layer.inputs[:3]), layer.inputs[3:]
        for name in mask:
            self._make_real(name)
        views = [StridedView.dense(self._seen[name].shape) for name in names]
        for base in {self._seen[name].base for name in names}:
            here = [i for i, name in enumerate(names) if self._seen[name].base == base]
            seen = [self._seen[names[i]] for i in here]
            if not _covered_once([s.view for s in seen], math.prod(self._shapes[base])) or any(
                len(s.view.shape) != 4 or (s.view.stride(3) != 1 and s.view.shape[3] > 1) for s in seen
            ):
                for i in here:
                    self._make_real(names[i])
                continue
            for i, s in zip(here, seen, strict=True):
                names[i] = base
                views[i] = StridedView(offset=s.view.storage_offset(), strides=tuple(s.view.stride()[:3]))  # type: ignore[arg-type]  # three of four
        fused = [name for name in names if names.count(name) > 1 and name not in layer.inputs]
        sources = list(dict.fromkeys(names)) if fused else names
        order = tuple(sources.index(name) if fused else i for i, name in enumerate(names))
        return replace(
            layer, inputs=(*sources, *mask), attributes={**layer.attributes, "sources": order, "views": tuple(views)}
        )


def _permutes_rows(view: torch.Tensor, width: int, elements: int) -> bool:
    """Whether a view shows every row of `width` dense elements once, in any order."""
    if view.dim() < 2 or view.shape[-1] != width or view.stride(-1) != 1 or view.numel() != elements:
        return False
    outer = sorted((stride, size) for stride, size in zip(view.stride()[:-1], view.shape[:-1], strict=True) if size > 1)
    expected = width
    for stride, size in outer:
        if stride != expected:
            return False
        expected *= size
    return True


def _leading(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    """`shape` without the last dimensions that make up `width`; the rows in one dimension where none do."""
    for cut in range(len(shape) - 1, 0, -1):
        if math.prod(shape[cut:]) == width:
            return shape[:cut]
    return (math.prod(shape) // width,)


def _covered_once(views: list[torch.Tensor], elements: int) -> bool:
    """Whether the views together show every element of their base once: their gradients then need no sum."""
    if sum(view.numel() for view in views) != elements:
        return False
    counts = np.zeros(elements, np.uint8)
    for view in views:
        items = counts[view.storage_offset() :]
        part = np.lib.stride_tricks.as_strided(items, tuple(view.shape), tuple(view.stride()))
        part += 1
    return bool((counts == 1).all())
