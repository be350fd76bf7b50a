"""Views are followed to the bytes they show, and copied only where somebody must have them dense."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import nn  # noqa: E402

from edge_runtime.export.capture.capture import capture  # noqa: E402
from edge_runtime.export.ir.constants import Mask  # noqa: E402
from edge_runtime.export.ir.layers import Layer  # noqa: E402
from edge_runtime.export.passes.fusion import fuse  # noqa: E402
from edge_runtime.export.passes.kept_sums import keep_sums  # noqa: E402
from edge_runtime.export.passes.views import fold_views  # noqa: E402
from edge_runtime.export.step.inference import by_example  # noqa: E402
from tests.support import token_models  # noqa: E402


class _Calls(nn.Module):
    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]  # a test's lambda
        super().__init__()
        self.function = function
        self.unused = nn.Parameter(torch.zeros(1))  # a model without parameters has nothing to train

    def forward(self, x):  # type: ignore[no-untyped-def]  # a test's module
        return self.function(x)


def _layers(module: nn.Module, *shape: int, batch: int = 4, dtype: str = "float32") -> tuple[Layer, ...]:
    captured = capture(module, batch=batch, input_shape=shape, input_dtype=dtype)  # type: ignore[arg-type]  # a literal
    return keep_sums(fold_views(fuse(captured))).layers


def _kinds(module: nn.Module, *shape: int, dtype: str = "float32") -> Counter[str]:
    return Counter(layer.kind for layer in _layers(module, *shape, dtype=dtype))


def test_attention_reads_a_fused_projection_without_a_copy() -> None:
    kinds = _kinds(token_models.vit(), 3, 32, 32)
    assert kinds["attention"] == 3
    # The patches become tokens, and the class token is repeated.
    assert kinds["view"] == 2
    assert kinds["permute"] == 0


@pytest.mark.parametrize("model", [token_models.text, token_models.text_norm_first])
def test_pytorchs_own_encoder_has_no_copy_at_all(model) -> None:  # type: ignore[no-untyped-def]  # a factory
    layers = _layers(model(), 12, dtype="int64")
    assert not [layer for layer in layers if layer.kind in ("view", "permute", "crop")]
    assert [len(layer.inputs) for layer in layers if layer.kind == "attention"] == [1, 1]


def test_queries_that_are_not_the_whole_projection_are_copied() -> None:
    attend = nn.functional.scaled_dot_product_attention
    module = _Calls(lambda x: attend(x[:, :2], x[:, 1:3], x[:, 2:]).flatten(1))
    (attention,) = (layer for layer in _layers(module, 4, 5, 6) if layer.kind == "attention")
    assert attention.attributes["sources"] == (0, 1, 2)
    assert len(set(attention.inputs)) == 3


def test_a_copy_is_made_once_for_all_readers() -> None:
    module = _Calls(lambda x: (x.transpose(1, 2).tanh() + x.transpose(1, 2).relu()).flatten(1))
    first = _kinds(module, 3, 5)
    assert first["permute"] == 2  # two calls are two activations
    shared = _Calls(lambda x: (lambda y: (y.tanh() + y.relu()).flatten(1))(x.transpose(1, 2)))
    assert _kinds(shared, 3, 5)["permute"] == 1


def test_a_sum_takes_the_place_of_the_projection_before_it() -> None:
    kept = [layer.output for layer in _layers(token_models.vit(), 3, 32, 32) if layer.attributes.get("keep")]
    assert len(kept) == 6


def test_a_sum_whose_summands_are_needed_anyway_is_computed_again() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):  # type: ignore[no-untyped-def]  # a test's module
            a, b = self.a(x), self.b(x)
            return self.c(a + b) * a.tanh() * b.tanh()

    assert not [layer for layer in _layers(Both(), 8) if layer.attributes.get("keep")]


def test_examples_mix_where_the_batch_is_moved() -> None:
    turned = _Calls(lambda x: x.transpose(0, 1).contiguous().tanh().transpose(0, 1).flatten(1))
    layers = list(_layers(turned, 4, 5))  # as many rows as examples
    assert by_example(layers, "x", 4) is None
    plain = list(_layers(token_models.vit(), 3, 32, 32))
    split = by_example(plain, "x", 4)
    assert split is not None
    assert {layer.output for layer in plain if layer.output not in split} == {"token@expand"}


def test_masks_are_recognised() -> None:
    causal = torch.ones(3, 3, dtype=torch.bool).tril()
    assert Mask.of(torch.ones(1, 1, 3, 3, dtype=torch.bool), 3, 3) == Mask()
    assert Mask.of(torch.zeros(3, 3), 3, 3) == Mask()
    assert Mask.of(causal, 3, 3) == Mask(causal=True)
    assert Mask.of(causal.expand(4, 2, 3, 3), 3, 3) == Mask(causal=True)
    assert Mask.of(torch.zeros(3, 3).masked_fill(~causal, torch.finfo(torch.float32).min), 3, 3).causal
    other = Mask.of(torch.arange(18.0).view(2, 1, 3, 3), 3, 3)
    assert other.value is not None and other.view == (0, 9, 0, 3)
