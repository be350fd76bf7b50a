"""`profl-edge bench`."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.device.commands.options import bundle_argument, json_option, thread_count, threads_option

_LEARNING_RATE = 0.01


@click.command(epilog="Example: profl-edge bench BUNDLE --block 2 --steps 20 --threads 1 --json")
@bundle_argument
@click.option("--block", type=click.IntRange(1), default=1, show_default=True, help="Block, counted from 1.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Timed steps.")
@click.option("--warmup", "warmup_steps", type=click.IntRange(0), default=1, show_default=True, help="Untimed steps.")
@click.option("--cache-prefix", is_flag=True, help="The step that reads the prefix's outputs from a cache.")
@threads_option
@json_option
def bench(
    bundle: Path, block: int, steps: int, warmup_steps: int, cache_prefix: bool, threads: int | None, as_json: bool
) -> None:
    """Time and memory of training steps of one block, on synthetic data."""
    from edge_runtime.device import launch
    from edge_runtime.device.bundle import open_bundle
    from edge_runtime.device.job import new_job, program_job, step_hyperparameters

    opened = open_bundle(bundle)
    count = thread_count(threads)
    program = opened.program_for("grow", block, cached_prefix=cache_prefix)
    job = new_job("bench", program_job(opened, program, threads=count), threads=count, json=as_json)
    job["classes"] = opened.manifest.model.classes
    job["steps"], job["warmup_steps"] = steps, warmup_steps
    job["hyperparameters"] = step_hyperparameters(program, _LEARNING_RATE)
    launch.become(job)
