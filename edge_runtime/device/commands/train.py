"""`profl-edge train`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from device_profiles.errors import ExecutionError, OutOfMemoryError, UsageError
from edge_runtime.device.commands.options import (
    FILE,
    bundle_argument,
    data_option,
    json_option,
    megabytes,
    parse_size,
    print_json,
    thread_count,
    threads_option,
    weights_option,
)

if TYPE_CHECKING:
    from edge_runtime.device.report import StepReport

_PARENT_VARIABLE = "PROFL_EDGE_PARENT"
_CHECK_VARIABLE = "PROFL_EDGE_CHECK_ONLY"


@click.command(
    epilog="Example: profl-edge train BUNDLE --block 2 --data mnist-5k --memory-limit 128MB -o update.safetensors"
)
@bundle_argument
@click.option("--block", type=click.IntRange(1), required=True, help="Block to train, counted from 1.")
@data_option
@click.option("--steps", type=click.IntRange(1), help="Training steps.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data [default: 1].")
@click.option("--lr", "learning_rate", type=click.FloatRange(0.0), default=0.05, show_default=True)
@click.option("--seed", "--batch-seed", "seed", type=int, default=0, show_default=True, help="Seed of the order.")
@weights_option
@click.option("-o", "--output", type=FILE, help="Update to write (safetensors).")
@click.option("--base-version", default="", help="Name of the weights that training starts from, for the update.")
@click.option(
    "--memory-limit", "limit_bytes", type=parse_size, metavar="SIZE", help="Hard limit of the process: 128MB."
)
@threads_option
@click.option(
    "--checkpoint-every", type=click.IntRange(0), default=100, show_default=True, help="In steps; 0: when stopped."
)
@click.option("--resume", is_flag=True, help="Continue from the checkpoint beside the output, if there is one.")
@json_option
@click.pass_context
def train(context: click.Context, /, bundle: Path, as_json: bool, threads: int | None, **options: Any) -> int:
    """Train one block of BUNDLE and write the update.

    Examples are shuffled from the seed and the epoch; those that do not fill a last batch are left out of the epoch.
    SIGTERM stops after the step in progress and leaves a checkpoint for --resume.
    """
    if options["steps"] is not None and options["epochs"] is not None:
        raise UsageError("--steps and --epochs: give one of the two")
    from edge_runtime.device.limits import current_limit

    kind = current_limit()
    if options["limit_bytes"] is not None and kind == "none" and not _only_check():
        return _supervise(context.find_root().obj, options["limit_bytes"])
    return _train(as_json, limit_kind=kind, bundle=bundle, threads=thread_count(threads), **options)


def _only_check() -> bool:
    return os.environ.get(_CHECK_VARIABLE) == str(os.getppid())


def _train(as_json: bool, **options: Any) -> int:
    from edge_runtime.device.process import end_with_parent, make_light

    if os.environ.get(_PARENT_VARIABLE) == str(os.getppid()):
        end_with_parent(os.getppid(), signal.SIGKILL)
    make_light()
    from edge_runtime.device.train import TrainRequest, check
    from edge_runtime.device.train import train as run_training

    request = TrainRequest(**options)
    if _only_check():
        check(request)
        return 0
    result = run_training(request)
    if as_json:
        print_json(result.report)
    else:
        _print_table(result.report)
    return 128 + signal.SIGINT if result.signal == signal.SIGINT else 0


def _supervise(arguments: list[str], limit_bytes: int) -> int:
    """Run the same command in a process under the limit, once it is known that the promise fits.

    The check runs in a process of its own without the limit, so that a limit which the command could not even start
    under is refused with the numbers; this process stays small beside the limited one.
    """
    import subprocess

    from edge_runtime.device.limits import run_limited

    command = [sys.executable, "-m", "edge_runtime.device", *arguments]
    environment = {**os.environ, _PARENT_VARIABLE: str(os.getpid())}
    checked = subprocess.run(command, env={**environment, _CHECK_VARIABLE: str(os.getpid())}, check=False)
    if checked.returncode:
        return checked.returncode if checked.returncode > 0 else 1
    outcome = run_limited(command, limit_bytes=limit_bytes, env=environment, on_start=_forward_signals)
    if outcome.oom_kills:
        raise OutOfMemoryError(f"--memory-limit {megabytes(limit_bytes)}: the kernel ended the training at this limit")
    if outcome.returncode < 0:
        raise ExecutionError(f"the training process was ended by signal {-outcome.returncode}")
    return outcome.returncode


def _forward_signals(process: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: process.send_signal(received))


def _print_table(report: StepReport) -> None:
    state = "interrupted" if report.interrupted else "done"
    click.echo(f"block {report.block} ({report.program}): {report.steps} steps, {state}")
    if report.loss_first is not None and report.loss_last is not None:
        click.echo(f"loss           {report.loss_first:.4f} -> {report.loss_last:.4f}")
    if report.step_seconds_median is not None:
        click.echo(f"step           {report.step_seconds_median:.4f} s (prefix {report.prefix_seconds or 0:.4f} s)")
    click.echo(f"promised peak  {megabytes(report.predicted_peak_bytes)}")
    click.echo(f"measured peak  {megabytes(report.measured_peak_bytes)} (limit: {report.limit_kind})")
    if report.output is not None:
        click.echo(f"update         {report.output}")
