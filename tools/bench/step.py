"""Seconds per step and peak memory of every block of a model, beside PyTorch eager and onnxruntime-training.

    python -m tools.bench.step --model resnet18 -o resnet18.json --picture resnet18.svg

Each measurement is a fresh process; the runtimes take turns (A B A B), so that what slows the machine down for a while
slows all of them. Ratios are taken within a pair. With -o, an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run by its path instead of with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from device_profiles.errors import ProflError, UsageError
from device_profiles.files import read_json
from edge_runtime.export.commands.model_options import parse_shape
from tools.bench import tables
from tools.bench.picture import draw
from tools.bench.results import Results, Settings
from tools.bench.runner import PEERS, Bench, Plan, say
from tools.bench.workload import Request, Workload


@click.command(epilog="Example: python -m tools.bench.step --model resnet18 -o resnet18.json --picture resnet18.svg")
@click.option("--model", help="A built-in model or package.module:factory.")
@click.option("--width", type=int, help="Channels of a built-in model's first convolution.")
@click.option("--input", "input_text", default="3x32x32", show_default=True, help="Shape of one example.")
@click.option("--classes", default=10, show_default=True, help="Number of classes.")
@click.option("--blocks", type=int, help="Cut into N blocks.")
@click.option("--partition", help="Cut at these units: 0-2,3-4,5-8.")
@click.option("--batch", default=32, show_default=True, help="Examples in one step.")
@click.option("--export-options", default="", help="More options of `profl-edge export`.")
@click.option("--train-options", default="", help="More options of `profl-edge bench` and `train`.")
@click.option("--block", "blocks_asked", type=int, multiple=True, help="Only these blocks; may be given again.")
@click.option("--threads", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--pairs", type=click.IntRange(1), default=3, show_default=True, help="Processes of each runtime.")
@click.option("--warmup", type=click.IntRange(0), default=2, show_default=True, help="Untimed steps of a process.")
@click.option("--steps", type=click.IntRange(1), default=8, show_default=True, help="Timed steps of a process.")
@click.option("--peer", type=click.Choice([*PEERS, "none"]), multiple=True, help="[default: both]")
@click.option(
    "--onnxruntime-python",
    type=click.Path(path_type=Path),
    default=Path(".venv-onnxruntime/bin/python"),
    show_default=True,
    help="Interpreter that has onnxruntime-training.",
)
@click.option("--from", "source", type=click.Path(path_type=Path), help="Show results of -o, measure nothing.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file; continues one that is there.")
@click.option("--picture", type=click.Path(path_type=Path), help="SVG file.")
@click.option("--markdown", is_flag=True, help="Print a section for docs/performance.md instead of a table.")
def step(source: Path | None, picture: Path | None, markdown: bool, **options: Any) -> None:
    """Time and memory of training steps, ours and the peers' in one run."""
    results = read_json(source, Results) if source is not None else _measured(**options)
    click.echo(tables.markdown(results) if markdown else tables.text(results))
    if picture is not None:
        draw(results, picture)


def _measured(
    *,
    model: str | None,
    width: int | None,
    input_text: str,
    classes: int,
    blocks: int | None,
    partition: str | None,
    batch: int,
    export_options: str,
    train_options: str,
    blocks_asked: tuple[int, ...],
    threads: tuple[int, ...],
    pairs: int,
    warmup: int,
    steps: int,
    peer: tuple[str, ...],
    onnxruntime_python: Path,
    output: Path | None,
) -> Results:
    if model is None:
        raise UsageError("--model: name the model to measure, or give --from a file of results")
    request = Request(
        model=model,
        width=width,
        input_shape=parse_shape(input_text),
        classes=classes,
        blocks=blocks,
        partition=partition,
        batch=batch,
        export_options=export_options,
    )
    settings = Settings(
        model=model,
        options=request.described(),
        batch=batch,
        warmup=warmup,
        steps=steps,
        train_options=train_options,
        peers=tuple(name for name in PEERS if not peer or name in peer),
    )
    plan = Plan(
        settings=settings,
        blocks=blocks_asked,
        threads=threads,
        pairs=pairs,
        onnxruntime_python=onnxruntime_python,
        output=output,
    )
    with tempfile.TemporaryDirectory(prefix="profl-bench-") as folder:
        say(f"{model}: exporting")
        bench = Bench(plan, Workload(request, Path(folder)))
        bench.run()
    return bench.results


def main() -> None:
    """Run the command; an error is one line."""
    try:
        step()
    except ProflError as error:
        click.echo(f"step: error: {error}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
