"""`profl-edge models`: the built-in models, and where a model can be cut."""

from __future__ import annotations

import json

import click

from device_profiles.contract import DType
from edge_runtime.export.commands.model_options import (
    asked_or_usual,
    classes_option,
    head_option,
    input_dtype_option,
    input_option,
    width_option,
)


@click.command("models", epilog="Example: profl-edge models --model resnet18")
@click.option("--model", help="Show one model: a built-in one or package.module:factory.")
@width_option
@input_option
@input_dtype_option
@classes_option
@head_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models(
    model: str | None,
    width: int | None,
    input_text: str | None,
    input_dtype: DType | None,
    classes: int | None,
    head: str | None,
    as_json: bool,
) -> None:
    """List the built-in models, or show one model's units and where it cannot be cut."""
    if model is None:
        _list_built_in(as_json)
        return
    from edge_runtime.export.commands.describe import description, lines
    from edge_runtime.export.models import default_dtype
    from edge_runtime.export.models.factory import create_model
    from edge_runtime.export.plan.block_model import BlockModel

    shape, classes = asked_or_usual(model, input_text, classes)
    module = create_model(model, width=width, classes=classes, input_shape=shape)
    source = BlockModel.of(
        module,
        name=model,
        batch=2,
        input_shape=shape,
        classes=classes,
        head=head,
        input_dtype=input_dtype or default_dtype(model),
    )
    described = description(source)
    click.echo(json.dumps(described) if as_json else "\n".join(lines(described)))


def _list_built_in(as_json: bool) -> None:
    from edge_runtime.export import models as built_in
    from edge_runtime.export.plan.block_model import BlockModel

    described = []
    for entry in built_in.BUILT_IN.values():
        module = built_in.create(entry.name, classes=entry.classes, input_channels=entry.input_shape[0])
        source = BlockModel.of(
            module,
            name=entry.name,
            batch=2,
            input_shape=entry.input_shape,
            classes=entry.classes,
            input_dtype=entry.input_dtype,
        )
        described.append((entry, [unit.name for unit in source.cut.units]))
    if as_json:
        listed = [
            {
                "name": entry.name,
                "description": entry.description,
                "input_shape": entry.input_shape,
                "input_dtype": entry.input_dtype,
                "classes": entry.classes,
                "width": entry.width,
                "units": units,
                "blocks": entry.default_blocks,
            }
            for entry, units in described
        ]
        click.echo(json.dumps({"models": listed}))
        return
    for entry, units in described:
        click.echo(f"{entry.name}: {entry.description}, input {'x'.join(map(str, entry.input_shape))}")
        for number, (first, last) in enumerate(entry.default_blocks, start=1):
            names = ", ".join(f"{i} {units[i]}" for i in range(first, last + 1))
            click.echo(f"  block {number}: units {names}")
