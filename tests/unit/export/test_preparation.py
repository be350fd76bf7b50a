"""Inputs that are normalised inside of the model, which units are trained, and options that belong together."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models are PyTorch's")

from torch import nn  # noqa: E402

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.work import Grow, Head, Joint  # noqa: E402
from edge_runtime.export.cut.trained import trained_units  # noqa: E402
from edge_runtime.export.models.normalised import normalisation_of  # noqa: E402
from edge_runtime.export.models.preparation import Preparation  # noqa: E402


def _prepared(shape: tuple[int, ...], **options: Any) -> nn.Module:
    module = nn.Sequential(nn.Identity())
    Preparation(**options).apply(module, classes=3, input_shape=shape, note=lambda line: None)
    return module


def test_pixels_are_normalised_by_mean_and_deviation_of_a_byte_by_255() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    module = _prepared((3, 4, 5), mean=mean, std=std)
    pixels = torch.randint(0, 256, (2, 3, 4, 5))
    expected = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(module(pixels * 2 / 255 - 1), expected, rtol=1e-5, atol=1e-6)
    given = normalisation_of(module)
    assert given is not None and (given.mean, given.std) == (mean, std)


@pytest.mark.parametrize("shape", [(2,), (2, 7)])
def test_other_inputs_are_normalised_as_they_are(shape: tuple[int, ...]) -> None:
    module = _prepared(shape, mean=(10.0, -1.0), std=(4.0, 0.5))
    x = torch.randn(3, *shape)
    wide = (2, *(1,) * (len(shape) - 1))
    expected = (x - torch.tensor([10.0, -1.0]).reshape(wide)) / torch.tensor([4.0, 0.5]).reshape(wide)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mean": (1.0,)}, "--mean and --std belong together; give both"),
        ({"mean": (1.0,), "std": (1.0,)}, "--mean: has 1 numbers, but --input 2 has 2 rows"),
        ({"mean": (1.0, 1.0), "std": (1.0, 0.0)}, "--std: needs finite numbers, deviations above 0"),
        ({"lora_targets": ("fc",)}, "--lora-targets requires --lora"),
        ({"lora_alpha": 1.0}, "--lora-alpha requires --lora"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        _prepared((2,), **options)


def test_units_that_are_trained_end_with_the_last() -> None:
    assert trained_units("6-8", 9) == trained_units("6", 9) == Joint(first_unit=6, last_unit=8)
    assert trained_units("all", 9) == trained_units("0-8", 9) == Grow(first_unit=0, last_unit=8)
    assert trained_units("head", 9) == Head(last_unit=8)
    for text in ("2-5", "9", "8-6", "last", "-3", ""):
        with pytest.raises(UsageError, match=r"the model has units 0 to 8, .* write A-8, all, or head"):
            trained_units(text, 9)
