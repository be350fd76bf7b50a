"""Where models are cut."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the exporter needs torch")

from torch import nn  # noqa: E402

from device_profiles.errors import FormatError, UsageError  # noqa: E402
from edge_runtime.export import models  # noqa: E402
from edge_runtime.export.capture import capture  # noqa: E402
from edge_runtime.export.fusion import fuse  # noqa: E402
from edge_runtime.export.units import cut, parse_partition  # noqa: E402


def _units(name: str) -> list[str]:
    model = models.create(name, width=4)
    return [unit.name for unit in cut(fuse(capture(model, batch=2, input_shape=(3, 32, 32)))).units]


def test_resnet18_is_cut_between_its_residual_blocks() -> None:
    assert _units("resnet18") == ["conv1", *[f"layer{s}.{i}" for s in (1, 2, 3, 4) for i in (0, 1)]]


@pytest.mark.parametrize(("name", "count"), [("resnet34", 17), ("vgg11_bn", 8), ("vgg16_bn", 13), ("cnn", 3)])
def test_units_of_the_other_models(name: str, count: int) -> None:
    assert len(_units(name)) == count


@pytest.mark.parametrize("name", list(models.BUILT_IN))
def test_default_blocks_cover_the_model(name: str) -> None:
    ranges = ",".join(f"{a}-{b}" for a, b in models.BUILT_IN[name].default_blocks)
    assert len(parse_partition(ranges, len(_units(name))).blocks) == len(models.BUILT_IN[name].default_blocks)


@pytest.mark.parametrize("text", ["0-1,3-8", "1-8", "0-7", "0-4,4-8"])
def test_a_partition_with_a_gap_or_overlap_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="partition"):
        parse_partition(text, 9)


def test_a_partition_that_is_not_numbers_names_the_option() -> None:
    with pytest.raises(UsageError, match="--partition"):
        parse_partition("a-b", 9)


def test_a_model_without_a_classifier_head_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(UsageError, match="classifier head"):
        cut(fuse(capture(model, batch=2, input_shape=(3, 8, 8))))


def test_an_operator_without_a_kernel_is_named_with_its_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softshrink())
    with pytest.raises(UsageError, match=r"'1'.*softshrink"):
        capture(model, batch=2, input_shape=(3, 8, 8))


def test_batch_norm_takes_the_residual_and_the_relu() -> None:
    model = models.create("resnet18", width=4)
    layers = fuse(capture(model, batch=2, input_shape=(3, 32, 32))).layers
    kinds = [layer.kind for layer in layers]
    assert "relu" not in kinds and "add" not in kinds
    assert sum(len(layer.inputs) == 2 for layer in layers) == 8
