"""`profl-edge eval`."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.device.commands.options import (
    bundle_argument,
    data_option,
    json_option,
    megabytes,
    print_json,
    thread_count,
    threads_option,
    weights_option,
)


@click.command("eval", epilog="Example: profl-edge eval BUNDLE --data mnist-5k --weights update.safetensors")
@bundle_argument
@click.option("--block", type=click.IntRange(1), help="Evaluate the model up to this block [default: the last].")
@data_option
@weights_option
@click.option("--limit", type=click.IntRange(1), help="Use only the first examples of the test split.")
@threads_option
@json_option
def eval_command(
    bundle: Path,
    block: int | None,
    data: str,
    weights: Path | None,
    limit: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Accuracy and loss of the model up to a block, on the test split of the data."""
    from edge_runtime.device.process import make_light

    make_light()
    from edge_runtime.device.evaluate import evaluate

    report = evaluate(bundle, block=block, data=data, weights=weights, limit=limit, threads=thread_count(threads))
    if as_json:
        print_json(report)
        return
    click.echo(f"block {report.block} ({report.program}), {report.examples} examples")
    if report.accuracy is not None:
        click.echo(f"accuracy       {report.accuracy:.4f}")
    click.echo(f"loss           {report.loss:.4f}")
    click.echo(f"measured peak  {megabytes(report.measured_peak_bytes)}")
