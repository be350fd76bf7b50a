"""The kernels of token models against PyTorch in float64, on odd sizes and at the edges."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch in float64")

from torch.nn import functional  # noqa: E402

from edge_runtime.device import _operators  # noqa: E402
from tests.support.dropout import keep_factors  # noqa: E402

TOLERANCE = 2e-5


@pytest.fixture(autouse=True, params=[1, 2], ids=["one-thread", "two-threads"])
def _threads(request: pytest.FixtureRequest) -> None:
    _operators.set_threads(request.param)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def _call(name: str, *arguments: object) -> None:
    converted = [list(a) if isinstance(a, tuple) else a for a in arguments]
    assert _operators.call(f"profl::{name}.out", converted) == 0


def _double(array: np.ndarray, *, gradient: bool = False) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float64)).requires_grad_(gradient)


def _close(ours: np.ndarray, expected: torch.Tensor, name: str = "", tolerance: float = TOLERANCE) -> None:
    theirs = expected.detach().numpy()
    scale = max(float(np.abs(theirs).max(initial=0.0)), 1e-3)
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max(initial=0.0)) / scale < tolerance, name


def _empty(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


@pytest.mark.parametrize("shape", [(4, 7, 192), (3, 1), (65, 33), (2, 3, 5, 16)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_forward_again_and_backward(shape: tuple[int, ...], affine: bool) -> None:
    x, width = _random(*shape) * 3 + 5, shape[-1]
    weight, bias = (_random(width, seed=1), _random(width, seed=2)) if affine else (None, None)
    dx = _double(x, gradient=True)
    dw, db = (None if a is None else _double(a, gradient=True) for a in (weight, bias))
    expected = functional.layer_norm(dx, (width,), dw, db, 1e-5)
    y, mean, rstd = _empty(*shape), _empty(*shape[:-1]), _empty(*shape[:-1])
    _call("layer_norm", x, weight, bias, 1e-5, y, mean, rstd)
    _close(y, expected)
    again = _empty(*shape)
    _call("layer_norm_apply", x, weight, bias, mean, rstd, again)
    np.testing.assert_array_equal(again, y)
    gradient = _random(*shape, seed=3)
    expected.backward(_double(gradient))
    to_weight, to_bias = (None if a is None else _empty(width) for a in (weight, bias))
    for in_place in (gradient.copy(), x.copy()):  # the input's gradient may overwrite either
        source = in_place if in_place is not None and np.array_equal(in_place, gradient) else gradient
        other = x if source is in_place else in_place
        _call("layer_norm_backward", source, other, weight, mean, rstd, in_place, to_weight, to_bias)
        _close(in_place, dx.grad, "input", 1e-4 if width == 1 else TOLERANCE)
        if affine:
            _close(to_weight, dw.grad, "weight")
            _close(to_bias, db.grad, "bias")


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_and_its_gradient(approximate: str) -> None:
    x = np.concatenate([_random(40_001) * 3, np.array([0.0, -0.0, 30.0, -30.0, 1e5, -1e5], np.float32)])
    dx = _double(x, gradient=True)
    expected = functional.gelu(dx, approximate=approximate)
    expected[:40_001].backward(_double(np.ones(40_001, np.float32)))
    y = _empty(x.size)
    _call("gelu", x, approximate == "tanh", y)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=2e-6, atol=1e-6)
    gradient = np.ones_like(x)
    _call("gelu_backward", gradient, x, approximate == "tanh", gradient)
    np.testing.assert_allclose(gradient[:40_001], dx.grad.numpy()[:40_001], atol=2e-6)
    assert np.isfinite(gradient).all()
    _call("gelu", np.array([np.nan, np.inf], np.float32), approximate == "tanh", y := _empty(2))
    assert np.isnan(y[0]) and y[1] == np.inf


@pytest.mark.parametrize("shape", [(5, 7), (3, 2, 300), (2, 1), (4, 17)])
def test_softmax_and_its_gradient(shape: tuple[int, ...]) -> None:
    x, gradient = _random(*shape) * 20, _random(*shape, seed=1)
    x[0, ..., 0] = -np.inf if shape[-1] > 1 else 0.0
    dx = _double(x, gradient=True)
    expected = dx.softmax(-1)
    expected.backward(_double(gradient))
    _call("softmax", x, x)
    _close(x, expected)
    _call("softmax_backward", gradient, x, gradient)
    _close(gradient, dx.grad)


ATTENTIONS = [
    # batch, heads, queries, keys, width, value width
    (2, 3, 65, 65, 64, 64),
    (1, 2, 16, 16, 8, 8),
    (2, 1, 1, 1, 1, 1),
    (1, 2, 130, 300, 20, 12),
    (2, 2, 5, 129, 7, 9),
]


def _masked_attention(q, k, v, mask, scale, causal, factors):  # type: ignore[no-untyped-def]
    scores = q @ k.transpose(-2, -1) * scale
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    probabilities = scores.softmax(-1)
    return (probabilities if factors is None else probabilities * factors) @ v


def _dense(heads: int, tokens: int, width: int) -> tuple[int, ...]:
    return (0, heads * tokens * width, tokens * width, width)


@pytest.mark.parametrize("case", ATTENTIONS, ids=[str(i) for i in range(len(ATTENTIONS))])
@pytest.mark.parametrize(("causal", "masked", "dropout"), [(False, False, 0.0), (True, False, 0.3), (False, True, 0.0)])
def test_attention_and_its_gradients(case: tuple[int, ...], causal: bool, masked: bool, dropout: float) -> None:
    n, h, queries, keys, width, value_width = case
    q, k, v = (
        _random(n, h, t, w, seed=i) for i, (t, w) in enumerate([(queries, width), (keys, width), (keys, value_width)])
    )
    mask = np.where(_random(n, 1, queries, keys, seed=9) > 1, -np.inf, _random(n, 1, queries, keys)) if masked else None
    if mask is not None:
        mask[..., 0] = 0.0
    random = np.array([5, 3], np.int64) if dropout else None
    factors = None
    if random is not None:
        factors = torch.from_numpy(keep_factors(n * h * queries * keys, 5, 3, 11, dropout)).reshape(n, h, queries, keys)
    scale = 0.37
    tensors = [_double(a, gradient=True) for a in (q, k, v)]
    expected = _masked_attention(*tensors, None if mask is None else _double(mask), scale, causal, factors)
    gradient = _random(*expected.shape, seed=4)
    expected.backward(_double(gradient))
    # The output lies as [batch, queries, heads, width], as the layer behind it wants it.
    out, log_sums = _empty(n, queries, h, value_width), _empty(n, h, queries)
    shared = (
        (n, h, queries, keys, width, value_width),
        _dense(h, queries, width),
        _dense(h, keys, width),
        _dense(h, keys, value_width),
        (0, queries * keys, 0, keys),
        (0, queries * h * value_width, value_width, h * value_width),
        scale,
        causal,
        dropout,
        11,
    )
    mask32 = None if mask is None else mask.astype(np.float32)
    _call("attention", q, k, v, mask32, random, *shared, out, log_sums)
    _close(out.transpose(0, 2, 1, 3), expected, "output")
    turned = np.ascontiguousarray(gradient.transpose(0, 2, 1, 3))
    to = [_empty(*a.shape) for a in (q, k, v)]
    _call("attention_backward", turned, q, k, v, mask32, random, out, log_sums, *shared, *to)
    for name, ours, tensor in zip(("query", "key", "value"), to, tensors, strict=True):
        _close(ours, tensor.grad, name)


def test_attention_reads_and_writes_views_of_one_tensor() -> None:
    n, tokens, h, width = 2, 9, 3, 4
    fused = _random(n, tokens, 3, h, width)
    d = _double(fused, gradient=True)
    q, k, v = (d[:, :, i].transpose(1, 2) for i in range(3))
    expected = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    gradient = _random(*expected.shape, seed=1)
    expected.backward(_double(gradient))
    views = [(i * h * width, tokens * 3 * h * width, width, 3 * h * width) for i in range(3)]
    out, log_sums, to = _empty(n, tokens, h, width), _empty(n, h, tokens), _empty(*fused.shape)
    rest = ((0, 0, 0, 0), (0, tokens * h * width, width, h * width), width**-0.5, False, 0.0, 0)
    dims = (n, h, tokens, tokens, width, width)
    _call("attention", fused, fused, fused, None, None, dims, *views, *rest, out, log_sums)
    _close(out, expected)
    _call(
        "attention_backward", gradient, fused, fused, fused, None, None, out, log_sums, dims, *views, *rest, to, to, to
    )
    _close(to, d.grad)


def test_a_row_of_attention_without_any_key_is_zero_and_has_no_gradient() -> None:
    q = k = v = _random(1, 1, 3, 4)
    mask = np.zeros((1, 1, 3, 3), np.float32)
    mask[0, 0, 1] = -np.inf
    out, log_sums, to = _empty(1, 3, 1, 4), _empty(1, 1, 3), [_empty(1, 1, 3, 4) for _ in range(3)]
    shared = ((1, 1, 3, 3, 4, 4), *[(0, 12, 12, 4)] * 3, (0, 0, 0, 3), (0, 12, 4, 4), 0.5, False, 0.0, 0)
    _call("attention", q, k, v, mask, None, *shared, out, log_sums)
    assert (out[0, 1] == 0).all() and np.isfinite(out).all()
    _call("attention_backward", np.ones_like(out), q, k, v, mask, None, out, log_sums, *shared, *to)
    assert (to[0][0, 0, 1] == 0).all() and all(np.isfinite(t).all() for t in to)


@pytest.mark.parametrize(("turn_a", "turn_b"), [(False, False), (True, False), (False, True)])
def test_products_of_matrices(turn_a: bool, turn_b: bool) -> None:
    a, b = _random(2, 3, 70, 9), _random(2, 3, 9, 11)
    left = np.ascontiguousarray(a.swapaxes(-1, -2)) if turn_a else a
    right = np.ascontiguousarray(b.swapaxes(-1, -2)) if turn_b else b
    _call("matmul", left, right, turn_a, turn_b, c := _empty(2, 3, 70, 11))
    _close(c, _double(a) @ _double(b))


@pytest.mark.parametrize("padding", [-1, 2])
def test_embedding_and_its_gradient(padding: int) -> None:
    table, tokens = _random(7000, 9), np.random.default_rng(0).integers(0, 7000, (5, 31))
    tokens[0, :20] = 2
    dt = _double(table, gradient=True)
    expected = functional.embedding(torch.from_numpy(tokens), dt, None if padding < 0 else padding)
    y = _empty(5, 31, 9)
    _call("embedding", tokens, table, y)
    np.testing.assert_array_equal(y, expected.detach().numpy().astype(np.float32))
    gradient = _random(5, 31, 9, seed=1)
    expected.backward(_double(gradient))
    _call("embedding_weight_grad", gradient, tokens, padding, to := _empty(7000, 9))
    _close(to, dt.grad)
    for wrong in (-1, 7000):
        tokens[2, 3] = wrong
        assert _operators.call("profl::embedding.out", [tokens, table, y]) != 0


@pytest.mark.parametrize(("outer", "rows", "width"), [(1, 7000, 9), (3, 50, 1000), (200, 11, 1)])
def test_rows_at_places_and_their_gradient(outer: int, rows: int, width: int) -> None:
    x, places = _random(outer, rows, width), np.random.default_rng(0).integers(0, rows, 400)
    places[:20] = 2
    dx, index = _double(x, gradient=True), torch.from_numpy(places)
    expected = dx.index_select(1, index)
    y, numbers = _empty(outer, 400, width), places.astype(np.float32)
    _call("take", x, numbers, y)
    np.testing.assert_array_equal(y, expected.detach().numpy().astype(np.float32))
    gradient = _random(outer, 400, width, seed=1)
    expected.backward(_double(gradient))
    _call("take_backward", gradient, numbers, to := _empty(outer, rows, width))
    _close(to, dx.grad)
    for wrong in (-1, rows, np.nan, np.inf):
        numbers[7] = wrong
        assert _operators.call("profl::take.out", [x, numbers, y]) != 0
        assert _operators.call("profl::take_backward.out", [gradient, numbers, to]) != 0


def test_dropout_keeps_what_its_hash_says() -> None:
    x = _random(3, 100_001)
    for seed, execution, layer, p in ((0, 0, 0, 0.1), (-7, 12, 3, 0.5), (1 << 40, 1 << 33, 1, 0.9)):
        _call("dropout", x, np.array([seed, execution], np.int64), layer, p, y := _empty(*x.shape))
        factors = keep_factors(x.size, seed, execution, layer, p).reshape(x.shape)
        np.testing.assert_allclose(y, x * factors, rtol=1e-6)
        assert abs(float((factors == 0).mean()) - p) < 0.005
    _call("dropout", x, np.array([1, 1], np.int64), 0, 1.0, y)
    assert (y == 0).all()


def test_dropout_of_other_layers_steps_and_seeds_is_unrelated() -> None:
    base = keep_factors(50_000, 3, 4, 5, 0.5) > 0
    for other in ((4, 4, 5), (3, 5, 5), (3, 4, 6)):
        same = float((base == (keep_factors(50_000, *other, 0.5) > 0)).mean())
        assert abs(same - 0.5) < 0.015


VIEWS = {
    "permute": lambda t: t.permute(2, 0, 3, 1),
    "transpose of the last": lambda t: t.transpose(-1, -2),
    "slice": lambda t: t[:, 1:3, ::2],
    "select": lambda t: t[:, :, 2],
    "expand": lambda t: t[:, :1].expand(-1, 6, -1, -1),
    "expand in front": lambda t: t[:1, 1:2].expand(7, 5, -1, -1),
    "one row": lambda t: t[1, 2, 3],
    "whole": lambda t: t,
}


@pytest.mark.parametrize("name", list(VIEWS))
def test_views_made_real_and_their_gradients(name: str) -> None:
    x = _random(3, 4, 5, 6)
    base = torch.from_numpy(x)
    view = VIEWS[name](base)
    y = _empty(*view.shape)
    _call("strided_copy", x, tuple(view.stride()), view.storage_offset(), y)
    np.testing.assert_array_equal(y, view.numpy())
    d = _double(x, gradient=True)
    gradient = _random(*view.shape, seed=1)
    VIEWS[name](d).backward(_double(gradient))
    to = _empty(*x.shape)
    _call("strided_copy_backward", np.asarray(gradient), tuple(view.stride()), view.storage_offset(), None, to)
    _close(to, d.grad)
    already = _random(*x.shape, seed=2)
    expected = d.grad + _double(already)
    apart, there = _empty(*x.shape), already.copy()
    for added, put in ((already, apart), (there, there)):
        _call("strided_copy_backward", gradient, tuple(view.stride()), view.storage_offset(), added, put)
        _close(put, expected)
