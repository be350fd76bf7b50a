"""`profl-edge eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.device.commands.options import (
    bundle_argument,
    data_option,
    initial_prefix_option,
    json_option,
    note,
    thread_count,
    threads_option,
    weights_option,
)

if TYPE_CHECKING:
    from edge_runtime.device.data.source import Split


@click.command(
    "eval", epilog="Example: profl-edge eval BUNDLE --data mnist-5k --weights u1.safetensors --weights u2.safetensors"
)
@bundle_argument
@click.option("--block", type=click.IntRange(1), help="Evaluate the model up to this block [default: the last].")
@data_option
@weights_option
@initial_prefix_option
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Part of the data to evaluate on.",
)
@click.option("--limit", type=click.IntRange(1), help="Evaluate on N examples, drawn in proportion to the classes.")
@threads_option
@json_option
def eval_command(
    bundle: Path,
    block: int | None,
    data: str,
    weights: tuple[Path, ...],
    initial_prefix: bool,
    split: Split,
    limit: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Evaluate accuracy and loss of the model up to a block."""
    from edge_runtime.device.data.source import sample
    from edge_runtime.device.prepare import launch
    from edge_runtime.device.prepare.bundle import open_bundle
    from edge_runtime.device.prepare.examples import check_examples, data_job, open_examples
    from edge_runtime.device.prepare.job import new_job, program_job
    from edge_runtime.device.prepare.laid_weights import LaidWeights

    launch.check_room()
    opened = open_bundle(bundle)
    manifest = opened.manifest
    program = opened.program_for("eval", block if block is not None else len(manifest.partition.blocks))
    source = open_examples(data, split, opened, program)
    check_examples(source, manifest.model)
    count = thread_count(threads)
    laid = LaidWeights(opened, weights)
    laid.check_whole([program], initial_allowed=initial_prefix)
    described = program_job(opened, program, threads=count, weights=laid)
    job = new_job("eval", described, threads=count, json=as_json)
    job["classes"] = manifest.model.classes
    job["data"] = data_job(source)
    job["examples"] = len(source)
    if limit is not None and limit < len(source):
        job["examples"], job["drawn"] = limit, sample(source.labels, limit, rows=source.targets).tobytes()
    job["initial_blocks"] = laid.initial_blocks([program])
    if not weights and not initial_prefix:
        note("without --weights, the bundle's initial weights are evaluated")
    launch.become(job)
