"""`profl-edge bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.device.commands.options import bundle_argument, json_option, thread_count, threads_option

if TYPE_CHECKING:
    from device_profiles.work import TrainingKind


@click.command(epilog="Example: profl-edge bench BUNDLE --block 2 --steps 20 --threads 1 --json")
@bundle_argument
@click.option("--block", type=click.IntRange(1), default=1, show_default=True, help="Block, counted from 1.")
@click.option(
    "--purpose",
    type=click.Choice(["grow", "distill"]),
    default="grow",
    show_default=True,
    help="Train the block, or distil it into its stand-in.",
)
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Timed steps.")
@click.option("--warmup", "warmup_steps", type=click.IntRange(0), default=1, show_default=True, help="Untimed steps.")
@click.option("--cache-prefix", is_flag=True, help="Time the step that reads the prefix's outputs from a cache.")
@threads_option
@json_option
def bench(
    bundle: Path,
    block: int,
    purpose: TrainingKind,
    steps: int,
    warmup_steps: int,
    cache_prefix: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure time and memory of training steps of one block, on synthetic data."""
    from edge_runtime.device.prepare import launch
    from edge_runtime.device.prepare.bundle import open_bundle
    from edge_runtime.device.prepare.job import bench_job

    launch.check_room()
    opened = open_bundle(bundle)
    program = opened.program_for(purpose, block, cached_prefix=cache_prefix)
    launch.become(
        bench_job(
            opened,
            program,
            steps=steps,
            warmup_steps=warmup_steps,
            threads=thread_count(threads),
            json=as_json,
        )
    )
