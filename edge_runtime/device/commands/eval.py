"""`profl-edge eval`."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.device.commands.options import (
    bundle_argument,
    data_option,
    json_option,
    one_blas_thread,
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
    one_blas_thread()
    from edge_runtime.device import launch
    from edge_runtime.device.bundle import open_bundle
    from edge_runtime.device.job import new_job, program_job
    from edge_runtime.device.train import check_examples, data_job, open_examples

    launch.check_room()
    opened = open_bundle(bundle)
    manifest = opened.manifest
    program = opened.program_for("eval", block if block is not None else len(manifest.partition.blocks))
    source = open_examples(data, "test", opened, program)
    check_examples(source, manifest.model)
    count = thread_count(threads)
    described = program_job(opened, program, threads=count, weights=weights)
    job = new_job("eval", described, threads=count, json=as_json)
    job["classes"] = manifest.model.classes
    job["data"] = data_job(source)
    job["examples"] = min(len(source), limit) if limit is not None else len(source)
    launch.become(job)
