"""`profl-edge train`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from device_profiles.errors import UsageError
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.settings import Setting
from device_profiles.trades import TRADES
from edge_runtime.device.commands.options import (
    FILE,
    bundle_argument,
    data_option,
    initial_prefix_option,
    json_option,
    nice_option,
    note,
    thread_count,
    threads_option,
    weights_option,
)
from edge_runtime.device.limits.mark import current_limit
from edge_runtime.options import Finite, OutputFile, Size, TrainingWork

if TYPE_CHECKING:
    from edge_runtime.device.prepare.request import TrainRequest
    from edge_runtime.device.worker.job import CacheDType, Job

_DEFAULT_RATES = ", ".join(
    f"{kind.learning_rate:g} for {name}"
    + (f" ({kind.distillation_rate:g} to distil)" if kind.distillation_rate != kind.learning_rate else "")
    for name, kind in OPTIMIZERS.items()
)
_PARENT_VARIABLE = "PROFL_EDGE_PARENT"


@click.command(
    epilog="Example: profl-edge train BUNDLE --block 2 --data mnist-5k --memory-limit 128MB -o update.safetensors"
)
@bundle_argument
@click.option(
    "--block",
    type=click.IntRange(1),
    help="Block to train, counted from 1 [default: the bundle's only training step, if it has one].",
)
@click.option(
    "--work",
    type=TrainingWork(),
    help="Instead of --block: a training step by its units, such as joint-units3-8, or head-units0-8 for the output "
    "module alone. Requires a bundle that was exported with it.",
)
@click.option(
    "--variant",
    type=click.Choice(TRADES),
    help="With --work: the step that takes less memory, as a plan asks for it. Requires a bundle that has it.",
)
@click.option(
    "--first-block",
    type=click.IntRange(1),
    help="Train the blocks from this one to --block together. Requires a bundle exported with --joint.",
)
@click.option(
    "--purpose",
    type=click.Choice(["grow", "distill"]),
    help="Train the block, or distil it into its stand-in [default: grow].",
)
@data_option
@click.option("--steps", type=click.IntRange(1), help="Number of training steps.")
@click.option(
    "--epochs", type=Finite(0.0, 1e9, min_open=True), help="Passes over the data; fractions are allowed [default: 1]."
)
@click.option(
    "--max-seconds",
    type=Finite(0.0, min_open=True),
    help="Stop after the step that exceeds this time, and write the update.",
)
@click.option("--lr", "learning_rate", type=Finite(0.0), help=f"Learning rate [default: {_DEFAULT_RATES}].")
@click.option(
    "--proximal-mu",
    type=Finite(0.0),
    help="Factor of FedProx's proximal term. Requires a bundle exported with --proximal [default: 0].",
)
@click.option(
    "--augment",
    type=click.Choice(["crop-flip"]),
    help="Random crops (with a black border of 4 pixels) and random horizontal flips.",
)
@click.option("--augment-seed", type=int, help="Seed of --augment [default: the value of --seed].")
@click.option(
    "--augment-epoch",
    type=click.IntRange(0),
    help="Number of the first epoch for --augment, if a training is spread over several runs [default: 0].",
)
@click.option(
    "--seed", "--batch-seed", "seed", type=int, default=0, show_default=True, help="Seed of the order of examples."
)
@weights_option
@initial_prefix_option
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    help="Update file to write (safetensors) [default: none; the result is not kept].",
)
@click.option("--base-version", help="Name of the starting weights, stored in the update [default: their digest].")
@click.option(
    "--memory-limit",
    "limit_bytes",
    type=Size(),
    metavar="SIZE",
    help="Hard memory limit of the process, such as 128MB.",
)
@threads_option
@nice_option
@click.option(
    "--checkpoint-every",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Steps between checkpoints; 0: only when stopped.",
)
@click.option("--resume", is_flag=True, help="Continue from the checkpoint beside the output file, if there is one.")
@click.option("--cache-prefix", is_flag=True, help="Compute the frozen blocks once, and train from a file.")
@click.option(
    "--cache-prefix-dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    help="Number type of the cache; float32 is exact [default: float32].",
)
@click.option(
    "--cached-augmentations",
    type=click.IntRange(1),
    help="With --augment: cache N versions of every image; epoch e reads version e modulo N.",
)
@click.option("--cache-dir", "cache_folder", type=FILE, help="Folder of the cache [default: the user's cache folder].")
@json_option
def train(
    bundle: Path,
    as_json: bool,
    threads: int | None,
    niceness: int | None,
    cache_prefix: bool,
    cache_prefix_dtype: CacheDType | None,
    **options: Any,
) -> NoReturn:
    """Train one block of BUNDLE and write the update.

    With --purpose distill, the stand-in of the block learns to imitate the block (for the last block, so does the
    classifier head). Labels are not used.

    The order of examples depends on the seed and the epoch. An incomplete last batch of an epoch is left out. SIGTERM
    stops the training after the current step and saves a checkpoint for --resume.
    """
    if options["steps"] is not None and options["epochs"] is not None:
        raise UsageError(
            (Setting("steps"), " cannot be combined with ", Setting("epochs")), remedy="leave one of the two out"
        )
    for given, key in ((cache_prefix_dtype, "cache_prefix_dtype"), (options["cache_folder"], "cache_dir")):
        if given is not None and not cache_prefix:
            raise UsageError((Setting(key), " requires ", Setting("cache_prefix")), remedy="give both, or leave it out")
    from edge_runtime.device.limits.priority import be_nice
    from edge_runtime.device.prepare.launch import check_room
    from edge_runtime.device.prepare.lock import exclusive
    from edge_runtime.device.prepare.request import TrainRequest

    be_nice(niceness)
    check_room()
    cached = (cache_prefix_dtype or "float32") if cache_prefix else None
    request = TrainRequest(bundle=bundle, threads=thread_count(threads), cache_prefix=cached, **options)
    with exclusive(request.output) if request.output is not None else nullcontext() as lock:
        _train(request, lock, as_json)


def _train(request: TrainRequest, lock: tuple[Path, int] | None, as_json: bool) -> NoReturn:
    from edge_runtime.device.prepare import launch
    from edge_runtime.device.prepare.disk_room import check_disk
    from edge_runtime.device.prepare.training import prepare_training, remove_leftovers

    if request.output is not None:
        remove_leftovers(request.output)
    prepared = prepare_training(request, json=as_json)  # keeps the files of its data open until the exec
    job = prepared.job
    check_disk(job)
    _notes(request, job)
    parent = os.getppid() if os.environ.get(_PARENT_VARIABLE) == str(os.getppid()) else None
    if lock is not None:
        job["lock"] = str(lock[0]), lock[1]
    # A process that was started under its limit needs no second one.
    launch.become(job, limit_bytes=request.limit_bytes if current_limit() == "none" else None, parent=parent)


def _notes(request: TrainRequest, job: Job) -> None:
    """What is allowed and seldom meant."""
    blocks = job["initial_blocks"]
    if blocks and not request.initial_prefix:
        which = f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {', '.join(map(str, blocks))}"
        note(f"without --weights, {which} (frozen in this training) keep{'s' * (len(blocks) == 1)} the initial values")
    if request.output is None:
        note("without -o, the result of this training is not kept")
