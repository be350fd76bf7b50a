"""Random matrix products, attentions and embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.support.dropout import keep_factors
from tests.support.geometries.draw import Array, Call, Draw, Result, double, exact, largest, leaf, near, perturbed
from tests.support.geometries.training import update


def _rows(draw: Draw) -> tuple[tuple[int, ...], int, int]:
    """Leading dimensions, inputs and outputs of a layer."""
    while True:
        leading = tuple(draw.extent(9) for _ in range(draw.whole(1, 3)))
        inputs, outputs = (draw.whole(200, 420) if draw.chance(0.06) else draw.extent(60) for _ in range(2))
        if int(np.prod(leading)) * (inputs + outputs) <= 20_000:
            return leading, inputs, outputs


def linear(draw: Draw) -> Call:
    """With a bias or without."""
    leading, inputs, outputs = _rows(draw)
    x, weight, bias = draw.values(*leading, inputs), draw.values(outputs, inputs), draw.maybe(outputs)
    shift = torch.zeros(outputs).double() if bias is None else double(bias)
    scale = functional.linear(double(abs(x)), double(abs(weight)), shift.abs())
    return Call("linear", [x, weight, bias], [near(functional.linear(double(x), double(weight), shift), scale)])


def linear_input_grad(draw: Draw) -> Call:
    """Of the input."""
    leading, inputs, outputs = _rows(draw)
    gradient, weight = draw.values(*leading, outputs), draw.values(outputs, inputs)
    expected, scale = double(gradient) @ double(weight), double(abs(gradient)) @ double(abs(weight))
    return Call("linear_input_grad", [gradient, weight], [near(expected, scale)])


def _linear_weight(draw: Draw) -> tuple[Array, Array, torch.Tensor, torch.Tensor]:
    """Gradient, input, the weight's gradient and its terms' size."""
    leading, inputs, outputs = _rows(draw)
    gradient, x = draw.values(*leading, outputs), draw.values(*leading, inputs)
    rows, columns = double(gradient).reshape(-1, outputs), double(x).reshape(-1, inputs)
    return gradient, x, rows.T @ columns, rows.abs().T @ columns.abs()


def linear_weight_grad(draw: Draw) -> Call:
    """Of the weight."""
    gradient, x, expected, scale = _linear_weight(draw)
    return Call("linear_weight_grad", [gradient, x], [near(expected, scale)])


def linear_weight_grad_sgd(draw: Draw) -> Call:
    """The same straight into an update."""
    gradient, x, expected, scale = _linear_weight(draw)
    weight = draw.values(*expected.shape)
    step = update(draw, weight, expected, 1e-6 * float(scale.max()))
    return Call("linear_weight_grad_sgd", [gradient, x, weight, *step.arguments], step.results)


def matmul(draw: Draw) -> Call:
    """Products of matrices, either of them turned."""
    leading = tuple(draw.extent(5) for _ in range(draw.whole(0, 2)))
    m, n, k = (draw.extent(140 if draw.chance(0.1) else 40) for _ in range(3))
    a, b = draw.values(*leading, m, k), draw.values(*leading, k, n)
    expected, scale = double(a) @ double(b), double(abs(a)) @ double(abs(b))
    turn_a, turn_b = draw.chance(0.4), draw.chance(0.4)
    left = np.ascontiguousarray(a.swapaxes(-1, -2)) if turn_a else a
    right = np.ascontiguousarray(b.swapaxes(-1, -2)) if turn_b else b
    return Call("matmul", [left, right, turn_a, turn_b], [near(expected, scale)])


@dataclass(frozen=True)
class _Attention:
    """Sizes, tensors as they lie in memory, and how to see them as [batch, heads, tokens, width].

    `fused`: query, key and value are parts of one tensor, and so are their gradients.
    """

    sizes: list[int]
    tensors: list[Array]
    views: list[list[int]]
    mask: Array | None
    mask_view: list[int]
    random: Array | None
    rest: list[Any]
    out_shape: tuple[int, ...]
    out_view: list[int]
    fused: bool
    turned: bool  # the output lies as [batch, tokens, heads, width]
    factors: torch.Tensor | None

    @property
    def stack(self) -> list[Any]:
        """Behind the tensors."""
        return [self.sizes, *self.views, self.mask_view, self.out_view, *self.rest]

    def seen(self, index: int, tensor: torch.Tensor) -> torch.Tensor:
        """Query, key or value."""
        n, h, queries, keys, width, value_width = self.sizes
        tokens, own = (queries if index == 0 else keys), (value_width if index == 2 else width)
        offset, *strides = self.views[index]
        return tensor.as_strided((n, h, tokens, own), (*strides, 1), offset)

    def compute(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The result as it lies in memory, and the logarithms of the rows' sums."""
        n, h, queries, keys = self.sizes[:4]
        scale, causal = self.rest[:2]
        q, k, v = (self.seen(index, tensor) for index, tensor in enumerate(tensors))
        scores = q @ k.transpose(-1, -2) * scale
        if self.mask is not None:
            _, batch, head, row = self.mask_view
            scores = scores + double(self.mask).as_strided((n, h, queries, keys), (batch, head, row, 1), 0)
        if causal:
            hidden = torch.ones(queries, keys, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, -torch.inf)
        probabilities = scores.softmax(-1)
        probabilities = probabilities if self.factors is None else probabilities * self.factors
        values = probabilities @ v
        return values.transpose(1, 2) if self.turned else values, scores.logsumexp(-1)


def _dense(heads: int, tokens: int, width: int) -> list[int]:
    return [0, heads * tokens * width, tokens * width, width]


def _between(heads: int, tokens: int, width: int, parts: int = 1, part: int = 0) -> list[int]:
    """As a projection leaves them: [batch, tokens, parts, heads, width]."""
    row = parts * heads * width
    return [part * heads * width, tokens * row, width, row]


def _attention(draw: Draw) -> _Attention:
    while True:
        n, h = draw.extent(3), draw.extent(4)
        queries, keys = (draw.whole(90, 270) if draw.chance(0.08) else draw.extent(40) for _ in range(2))
        width, value_width = draw.extent(40), draw.extent(40)
        fused = draw.chance(0.3)
        if fused:
            keys, value_width = queries, width
        if n * h * queries * keys * (width + value_width) <= 1_500_000:
            break
    if fused:
        whole = draw.values(n, queries, 3, h, width)
        tensors, views = [whole] * 3, [_between(h, queries, width, 3, part) for part in range(3)]
    else:
        extents = [(queries, width), (keys, width), (keys, value_width)]
        turned = draw.chance(0.5)
        tensors = [draw.values(*((n, t, h, w) if turned else (n, h, t, w))) for t, w in extents]
        views = [(_between if turned else _dense)(h, t, w) for t, w in extents]
    mask, mask_view = _mask(draw, n, h, queries, keys)
    dropout, layer = draw.number(0.1, 0.7) if draw.chance(0.3) else 0.0, draw.whole(0, 9)
    random = np.array([draw.whole(0, 99), draw.whole(0, 99)], np.int64) if dropout else None
    factors = None
    if random is not None:
        kept = keep_factors(n * h * queries * keys, int(random[0]), int(random[1]), layer, dropout)
        factors = torch.from_numpy(kept).double().reshape(n, h, queries, keys)
    turned = draw.chance(0.5)
    return _Attention(
        sizes=[n, h, queries, keys, width, value_width],
        tensors=tensors,
        views=views,
        mask=mask,
        mask_view=mask_view,
        random=random,
        rest=[draw.number(0.1, 1.0), draw.chance(0.4), dropout, layer],
        out_shape=(n, queries, h, value_width) if turned else (n, h, queries, value_width),
        out_view=(_between if turned else _dense)(h, queries, value_width),
        fused=fused,
        turned=turned,
        factors=factors,
    )


def _mask(draw: Draw, n: int, h: int, queries: int, keys: int) -> tuple[Array | None, list[int]]:
    """None, or one that every example or head may share; the first key is always seen."""
    if draw.chance(0.6):
        return None, [0, 0, 0, 0]
    batches, heads = draw.pick([1, n]), draw.pick([1, h])
    mask = draw.values(batches, heads, queries, keys)
    mask[mask > 1] = -np.inf
    mask[..., 0] = 0.0
    plane = queries * keys
    return mask, [0, heads * plane if batches > 1 else 0, plane if heads > 1 else 0, keys]


def attention(draw: Draw) -> Call:
    """Forward, for training or not."""
    a = _attention(draw)
    results: list[Result | None] = [*perturbed(draw, a.compute, a.tensors)]
    if draw.chance(0.2):
        results[1] = None
    return Call("attention", [*a.tensors, a.mask, a.random, *a.stack], results)


def attention_backward(draw: Draw) -> Call:
    """Gradients of query, key and value, which may be parts of one tensor."""
    a = _attention(draw)
    gradient = draw.values(*a.out_shape)

    def reference(of_gradient: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        out, _ = a.compute(*leaves)
        out.backward(of_gradient)
        gradients = [one.grad for one in leaves if one.grad is not None]
        return [gradients[0] + gradients[1] + gradients[2]] if a.fused else gradients

    out, log_sums = (t.numpy().astype(np.float32) for t in a.compute(*map(double, a.tensors)))
    # Gradients of scores are differences of products with the result, and there is no gradient where they cancel out.
    size = largest(gradient) * max(map(largest, a.tensors)) ** 2 * a.sizes[5] ** 0.5 + largest(gradient)
    found = [
        Result(one.expected, one.allowed + 2e-6 * size)
        for one in perturbed(draw, reference, [gradient, *a.tensors], rounds=32)
    ]
    results: list[Result | None] = [*(found * 3 if a.fused else found)]
    arguments = [gradient, *a.tensors, a.mask, a.random, out, log_sums, *a.stack]
    return Call("attention_backward", arguments, results)


def _places(draw: Draw) -> tuple[Array, Array]:
    """A tensor [O, V, D], and places among V as float32."""
    outer, rows, width = draw.extent(12), draw.extent(30), draw.extent(12)
    places = draw.random.integers(0, rows, tuple(draw.extent(12) for _ in range(draw.whole(1, 2))))
    return draw.values(outer, rows, width), places.astype(np.float32)


def take(draw: Draw) -> Call:
    """Rows at constant places."""
    x, places = _places(draw)
    return Call("take", [x, places], [exact(np.ascontiguousarray(x[:, places.astype(np.int64).reshape(-1)]))])


def take_backward(draw: Draw) -> Call:
    """What each row gets of all places that read it."""
    x, places = _places(draw)
    index = torch.from_numpy(places.astype(np.int64).reshape(-1))
    gradient = draw.values(x.shape[0], len(index), x.shape[2])
    expected, size = (
        torch.zeros(x.shape, dtype=torch.float64).index_add(1, index, double(one)) for one in (gradient, abs(gradient))
    )
    # Added one after the other in float32.
    return Call("take_backward", [gradient, places], [near(expected, (size + 1e-9) * (1 + len(index) ** 0.5 / 16))])


def _embedding(draw: Draw) -> tuple[Array, Array]:
    rows, width = draw.extent(40), draw.extent(40)
    tokens = draw.random.integers(0, rows, tuple(draw.extent(12) for _ in range(draw.whole(1, 3))))
    return tokens, draw.values(rows, width)


def embedding(draw: Draw) -> Call:
    """Rows by their numbers."""
    tokens, table = _embedding(draw)
    return Call("embedding", [tokens, table], [exact(table[tokens])])


def embedding_weight_grad(draw: Draw) -> Call:
    """What each row gets of all places that read it."""
    tokens, table = _embedding(draw)
    padding = draw.whole(0, len(table) - 1) if draw.chance(0.4) else -1
    gradient = draw.values(*tokens.shape, table.shape[1])
    of_table, of_sizes = leaf(table), leaf(table)
    index = None if padding < 0 else padding
    functional.embedding(torch.from_numpy(tokens), of_table, index).backward(double(gradient))
    functional.embedding(torch.from_numpy(tokens), of_sizes, index).backward(double(abs(gradient)))
    assert of_table.grad is not None and of_sizes.grad is not None
    # Added one after the other in float32.
    size = (of_sizes.grad.abs() + 1e-9) * (1 + tokens.size**0.5 / 16)
    return Call("embedding_weight_grad", [gradient, tokens, padding], [near(of_table.grad, size)])
