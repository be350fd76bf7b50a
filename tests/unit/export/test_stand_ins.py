"""Stand-ins: one layer from a block's input to exactly its output, whatever these are."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn import functional  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from edge_runtime.export.cut.stand_ins import MissingBlock, StandIn, stand_in  # noqa: E402


def _stand_in(
    before: tuple[int, ...], after: tuple[int, ...], kinds: frozenset[str] = frozenset({"conv2d"})
) -> StandIn:
    block = MissingBlock(name="w", input="a", output="b", before=(2, *before), after=(2, *after), kinds=kinds)
    return stand_in(block, index=2)


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
    after = min(after, before + 2)
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
    made = _stand_in((48,), (24,), frozenset({"linear"}))
    assert made.weight_shape == (24, 48)
    assert [layer.kind for layer in made.layers] == ["linear"]


def test_from_images_to_features_it_is_their_mean_and_a_linear_layer() -> None:
    made = _stand_in((48, 5, 5), (24,))
    assert made.weight_shape == (24, 48)
    assert [layer.kind for layer in made.layers] == ["global_average_pool", "linear"]
    assert made.layers[0].output == made.layers[1].inputs[0]


@pytest.mark.parametrize(("before", "after"), [((16,), (3, 8, 8)), ((3, 8, 8), (3, 64)), ((3, 4, 4), (3, 40, 2))])
def test_what_has_no_stand_in_is_refused_with_both_shapes(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    text = f"{'x'.join(map(str, before))} to {'x'.join(map(str, after))}"
    with pytest.raises(UsageError, match=f"--partition: block 2 maps {text}"):
        _stand_in(before, after)
