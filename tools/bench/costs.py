"""How long are the costs of every run of a model's units in the making? `python -m tools.bench.costs`

Beside the time, by model: how many runs and variants were planned. Imports and the capture of the model are not in it.
"""

from __future__ import annotations

import json
import time

import click

from device_profiles.manifest import Optimizer
from edge_runtime.export.cut.units import partition_of
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.costs import DEFAULT_ONLY, Variants, step_costs
from edge_runtime.export.plan.runs import TrainingChoices

_SGD = TrainingChoices(optimizer=Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4))
_MODELS = (
    "resnet18",
    "resnet34",
    "vgg16_bn",
    "tests.support.models:mobilenet_v2_full",
    "tests.support.token_models:vit_tiny",
)


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--model", "models", multiple=True, default=_MODELS, help="A model, as `profl-edge export` takes it.")
@click.option("--width", type=int, help="Channels of a built-in model's first convolution.")
@click.option("--batch", default=32, show_default=True, help="Examples in one step.")
@click.option("--variants", is_flag=True, help="Also those that `profl-edge export --costs` writes.")
@click.option(
    "--recompute",
    "shares",
    type=float,
    multiple=True,
    help="Also recomputation within a budget, between least (0) and none (1).",
)
def main(models: tuple[str, ...], width: int | None, batch: int, variants: bool, shares: tuple[float, ...]) -> None:
    """One line a model, in JSON."""
    asked = Variants(recompute_shares=shares) if variants else DEFAULT_ONLY
    for name in models:
        module = create_model(name, width=width, classes=10, input_shape=(3, 32, 32))
        sizes = (batch, batch // 2, batch // 4) if variants else (batch,)
        sources = [BlockModel.of(module, name=name, batch=size, input_shape=(3, 32, 32), classes=10) for size in sizes]
        count = len(sources[0].cut.units)
        started, processor = time.perf_counter(), time.process_time()
        costs = list(step_costs(sources, partition_of([(0, count - 1)], count), _SGD, asked))
        line = {
            "model": name,
            "units": count,
            "rows": len(costs),
            "seconds": round(time.perf_counter() - started, 2),
            "processor_seconds": round(time.process_time() - processor, 2),
        }
        click.echo(json.dumps(line))


if __name__ == "__main__":
    main()
