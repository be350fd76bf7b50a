"""`profl-profile fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.device.commands.options import FILE, megabytes, print_json, thread_count
from edge_runtime.device.worker.text import megabytes_up
from profiler.commands.options import limit_option, measuring_options, model_choice

if TYPE_CHECKING:
    from profiler.fit.bisection import Fit, Trial


@click.command(epilog="Example: profl-profile fit bundles/batch8 bundles/batch16 bundles/batch32 --limit 128MB")
@click.argument("bundles", nargs=-1, type=FILE)
@limit_option
@measuring_options
def fit(
    bundles: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
    batch: int,
    model: str | None,
    width: int | None,
    input_text: str,
    classes: int,
    blocks: int | None,
    **options: Any,
) -> None:
    """Find the largest batch of each block, and its cheapest variant, that trains under --limit.

    BUNDLES contain the same model, exported with different batches or variants. With --runtime torch and --model, all
    batches up to --batch are candidates. Candidates really run under the limit; one that is killed does not fit.
    """
    from profiler.fit.fitting import fit_bundles, fit_model
    from profiler.profiling.profile import ProfileRequest
    from profiler.profiling.subject import model_subject

    choice = model_choice(
        bundles,
        runtime=options["runtime"],
        model=model,
        width=width,
        input_text=input_text,
        classes=classes,
        blocks=blocks,
    )
    request = ProfileRequest(bundle=None, output=Path(), threads=thread_count(threads), **options)

    def progress(line: str) -> None:
        click.echo(line, err=True)

    if choice is not None:
        fits = fit_model(model_subject(choice, batch), request, largest_batch=batch, progress=progress)
    else:
        fits = fit_bundles(bundles, request, progress=progress)
    if as_json:
        print_json({"fits": fits})
        return
    for found in fits:
        click.echo(_line(found))


def _line(found: Fit) -> str:
    head = f"block {found.block}: "
    if found.best is None:
        return head + f"nothing fits {megabytes(found.limit_bytes)}" + _closest(found.trials)
    best = found.best
    peak = "" if best.peak_bytes is None else f", peak {megabytes_up(best.peak_bytes)}"
    seconds = "" if best.step_seconds is None else f", {best.step_seconds:.3f} s a step"
    tried = ", ".join(f"{trial.batch}{'' if trial.fits else ' did not fit'}" for trial in found.trials)
    return f"{head}batch {best.batch} ({best.variant}) of {best.bundle}{peak}{seconds}; tried batches: {tried}"


def _closest(trials: tuple[Trial, ...]) -> str:
    died = [trial.died_at_bytes for trial in trials if trial.died_at_bytes is not None]
    return f" (the smallest died with {megabytes(min(died))})" if died else ""
