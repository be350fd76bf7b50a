"""Options that say what is done to a model before it is captured, and which of its units are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from device_profiles.errors import UsageError
from edge_runtime.options import Finite

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _numbers(_context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...]:
    """`0.485,0.456,0.406` as numbers."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError("write numbers, such as 0.485,0.456,0.406", field=parameter.name, value=text) from None


def _patterns(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


_OPTIONS = (
    click.option(
        "--initial-weights",
        type=click.Path(path_type=Path),
        help="Pretrained weights to start from (safetensors, or a state_dict of torch.save), matched by name.",
    ),
    click.option(
        "--mean",
        callback=_numbers,
        help="Mean of each channel of pixel / 255, or of each feature: inputs are normalised inside of the model.",
    ),
    click.option("--std", callback=_numbers, help="Standard deviation of each, as --mean."),
    click.option(
        "--train-units",
        metavar="UNITS",
        help="Fine-tune: train only these units and the head, such as 6-8, all, or head; units before are frozen.",
    ),
    click.option(
        "--frozen-dtype",
        type=click.Choice(["float32", "bfloat16"]),
        default="float32",
        show_default=True,
        help="Type in which weights are stored that are not trained, with --train-units or --lora.",
    ),
    click.option(
        "--lora",
        type=click.IntRange(1),
        metavar="RANK",
        help="Train adapters of this rank beside frozen weights (LoRA), and the classifier.",
    ),
    click.option(
        "--lora-alpha", type=Finite(0.0, min_open=True), help="Adapters are scaled by alpha / rank [default: 1]."
    ),
    click.option(
        "--lora-targets",
        callback=_patterns,
        help="Names of the layers with adapters, such as q_proj,*.self_attn [default: every linear layer].",
    ),
)


def preparing_options(command: _Command) -> _Command:
    """Add them to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
