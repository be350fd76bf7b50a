"""Stand-ins: one layer from a block's input to exactly its output, whatever these are."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import fx, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.contract import IMAGES_INPUT  # noqa: E402
from edge_runtime.export.capture.capture import capture  # noqa: E402
from edge_runtime.export.cut.layouts import Layouts  # noqa: E402
from edge_runtime.export.cut.missing import MissingBlock, StandIn  # noqa: E402
from edge_runtime.export.cut.stand_ins import stand_in  # noqa: E402
from edge_runtime.export.ir.builder import StepBuilder  # noqa: E402
from edge_runtime.export.ir.graph import Value  # noqa: E402
from edge_runtime.export.operators import emit_layer  # noqa: E402
from edge_runtime.export.passes.fusion import fuse  # noqa: E402
from edge_runtime.export.plan.arena import plan_arena  # noqa: E402
from edge_runtime.export.targets.stand_in_graph import append_stand_in  # noqa: E402
from edge_runtime.export.verify.programs import Native  # noqa: E402


def _stand_in(before: tuple[int, ...], after: tuple[int, ...], last: tuple[bool, bool] = (False, False)) -> StandIn:
    block = MissingBlock(
        name="w",
        input="a",
        output="b",
        before=(2, *before),
        after=(2, *after),
        last_before=last[0],
        last_after=last[1],
    )
    return stand_in(block)


def test_of_images_it_is_a_convolution_whose_stride_is_the_reduction() -> None:
    made = _stand_in((64, 32, 32), (128, 16, 16))
    (layer,) = made.layers
    assert made.weight_shape == (128, 64, 3, 3)
    assert (layer.kind, layer.inputs, layer.output) == ("conv2d", ("a",), "b")
    assert (layer.attributes["stride"], layer.attributes["padding"]) == ((2, 2), (1, 1))


def _run(made: StandIn, x: torch.Tensor) -> torch.Tensor:
    """The layers of a convolution's stand-in with weights of 1, by PyTorch."""
    for layer in made.layers:
        if layer.kind == "crop":
            edges = zip(layer.attributes["offsets"][2:], layer.shape[2:], x.shape[2:], strict=True)
            pads = [(-offset, offset + after - before) for offset, after, before in edges]
            x = functional.pad(x, [value for pair in reversed(pads) for value in pair])
        else:
            weight = torch.ones(made.weight_shape)
            x = functional.conv2d(x, weight, None, layer.attributes["stride"], layer.attributes["padding"])
    return x


@given(st.integers(1, 70), st.integers(1, 72))
def test_a_convolution_gives_exactly_the_size_it_stands_for_and_sees_the_image(before: int, after: int) -> None:
    after = max(min(after, before + 2), 2 if before > 3 else 1)
    y = _run(_stand_in((1, 4, before), (1, 4, after)), torch.ones(2, 1, 4, before))
    assert y.shape == (2, 1, 4, after)
    assert y.min() >= 2  # no window lies outside of the image


@pytest.mark.parametrize(("before", "after"), [(28, 12), (12, 4), (7, 3), (32, 7), (5, 5), (10, 12)])
def test_sizes_that_do_not_divide(before: int, after: int) -> None:
    made = _stand_in((3, before, before), (8, after, after))
    assert _run(made, torch.ones(2, 3, before, before)).shape == (2, 8, after, after)


def test_of_images_that_grow_it_is_a_convolution_at_the_smaller_size() -> None:
    made = _stand_in((8, 5, 7), (4, 10, 21))
    convolution, enlarged = made.layers
    assert made.weight_shape == (4, 8, 3, 3)
    assert (convolution.kind, convolution.shape) == ("conv2d", (2, 4, 5, 7))
    assert (enlarged.kind, enlarged.inputs, enlarged.output) == ("resample2d", (convolution.output,), "b")
    assert (enlarged.shape, enlarged.attributes["steps"]) == ((2, 4, 10, 21), (0.5, 1 / 3))


def test_of_sequences_it_is_a_convolution_of_three_steps() -> None:
    made = _stand_in((6, 128), (16, 64))
    assert made.weight_shape == (16, 6, 3)
    assert made.layers[0].attributes["stride"] == (1, 2)


def test_of_features_it_is_a_linear_layer() -> None:
    made = _stand_in((48,), (24,))
    assert made.weight_shape == (24, 48)
    assert [layer.kind for layer in made.layers] == ["linear"]


def test_from_images_to_features_it_is_their_mean_and_a_linear_layer() -> None:
    made = _stand_in((48, 5, 5), (24,))
    assert made.weight_shape == (24, 48)
    assert [layer.kind for layer in made.layers] == ["global_average_pool", "linear"]
    assert made.layers[0].output == made.layers[1].inputs[0]


def test_of_tokens_it_is_a_projection_of_their_features() -> None:
    for places in ((17,), (4, 4)):
        made = _stand_in((*places, 48), (*places, 24), (True, True))
        assert made.weight_shape == (24, 48)
        assert [layer.kind for layer in made.layers] == ["linear"]


def _computed(made: StandIn, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """By the operators that PyTorch's own graph gets."""
    graph = fx.Graph()
    graph.output(append_stand_in(graph, made, graph.placeholder("x")))
    module = fx.GraphModule({made.name: nn.Parameter(weight)}, graph)
    result = module(x)
    assert isinstance(result, torch.Tensor)
    return result


FIRST, LAST = False, True
PAIRS = [
    # images, tokens with and without class tokens, sequences, features; where each keeps its features
    ((8, 14, 14), (49, 6), (FIRST, LAST)),
    ((8, 14, 14), (50, 6), (FIRST, LAST)),
    ((8, 14, 7), (4 * 2 + 1, 6), (FIRST, LAST)),
    ((8, 5, 3), (7, 6), (FIRST, LAST)),
    ((14, 14, 8), (7, 7, 6), (LAST, LAST)),
    ((14, 14, 8), (6, 7, 7), (LAST, FIRST)),
    ((6, 7, 7), (14, 14, 8), (FIRST, LAST)),
    ((8, 9, 9), (6, 1, 1), (FIRST, FIRST)),
    ((8, 1, 1), (1, 6), (FIRST, LAST)),
    ((1, 1, 8), (6,), (LAST, FIRST)),
    ((8, 4, 9), (6, 8, 3), (FIRST, FIRST)),
    ((16, 8), (17, 6), (LAST, LAST)),
    ((17, 8), (16, 6), (LAST, LAST)),
    ((197, 8), (50, 6), (LAST, LAST)),
    ((16, 8), (6, 4, 4), (LAST, FIRST)),
    ((17, 8), (6, 2, 2), (LAST, FIRST)),
    ((12, 8), (5, 6), (LAST, LAST)),
    ((5, 8), (12, 6), (LAST, LAST)),
    ((12, 8), (6,), (LAST, FIRST)),
    ((8, 12), (10, 6), (FIRST, LAST)),
    ((8,), (6, 4, 4), (FIRST, FIRST)),
    ((8,), (5, 6), (FIRST, LAST)),
    ((2, 3, 4, 8), (12, 6), (LAST, LAST)),
    ((8, 2, 3, 4), (2, 2, 3, 6), (FIRST, LAST)),
]


@pytest.mark.parametrize(("before", "after", "last"), PAIRS)
def test_between_any_two_shapes_everything_is_seen_and_everything_learns(
    before: tuple[int, ...], after: tuple[int, ...], last: tuple[bool, bool]
) -> None:
    made = _stand_in(before, after, last)
    assert (made.layers[0].inputs, made.layers[-1].output) == (("a",), "b")
    x = torch.randn(2, *before, requires_grad=True)
    weight = torch.randn(made.weight_shape)
    y = _computed(made, x, weight)
    assert y.shape == (2, *after)
    assert bool(y.detach().abs().gt(0).all())
    y.square().sum().backward()
    assert x.grad is not None
    seen = x.grad.ne(0)
    # A class token that is not there behind the block is not read.
    assert seen.float().mean() >= 0.9


@pytest.mark.parametrize(("before", "after", "last"), PAIRS)
def test_the_program_of_a_stand_in_computes_what_its_graph_does(
    before: tuple[int, ...], after: tuple[int, ...], last: tuple[bool, bool], tmp_path: Path
) -> None:
    made = _stand_in(before, after, last)
    x, weight = torch.randn(2, *before), torch.randn(made.weight_shape)
    builder = StepBuilder(tensor_shapes={"w": made.weight_shape})
    images = Value(IMAGES_INPUT, (2, *before), "data")
    builder.graph.data.append(images)
    values = {"a": images}
    with builder.inference():
        for layer in made.layers:
            values[layer.output] = emit_layer(builder, layer, values)
    builder.graph.outputs.append(values["b"])
    (found,) = Native(builder.graph, plan_arena(builder.graph), tmp_path, {"w": weight}).run(x)
    torch.testing.assert_close(found, _computed(made, x, weight).detach(), rtol=1e-4, atol=1e-5)


def test_class_tokens_start_from_the_mean_of_all_places() -> None:
    made = _stand_in((4, 2, 2), (5, 3), (FIRST, LAST))
    y = _computed(made, torch.randn(2, 4, 2, 2), torch.randn(3, 4))
    torch.testing.assert_close(y[:, 0], y[:, 1:].mean(1))


class _Tokens(nn.Module):
    """A stem, then tokens of its pixels, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        y: torch.Tensor = self.head(self.norm(x + 1).mean(1))
        return y


def test_the_nearest_layer_says_where_features_are() -> None:
    captured = fuse(capture(_Tokens(), batch=2, input_shape=(3, 8, 8)))
    layouts = Layouts(captured.layers, captured.shapes)
    last = {layer.kind: layouts.is_last(layer.output) for layer in captured.layers}
    assert (last["conv2d"], last["activation"], last["layer_norm"]) == (False, False, True)
    (sum_,) = (layer for layer in captured.layers if layer.kind == "affine")
    assert layouts.is_last(sum_.output)
