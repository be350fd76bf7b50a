"""`profl-server merge` and `profl-server finish`: from single updates to the finished model, without a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from device_profiles.errors import ProflError
from edge_runtime.options import OutputFile

if TYPE_CHECKING:
    from edge_runtime.device.prepare.bundle import Bundle
    from server.finished.merge import Merge

_FILE = click.Path(path_type=Path)


@click.command(epilog="Example: profl-server merge bundle u1.safetensors u2.safetensors -o round1.safetensors")
@click.argument("bundle", type=_FILE)
@click.argument("updates", type=_FILE, nargs=-1, required=True)
@click.option(
    "--weights",
    type=_FILE,
    multiple=True,
    help="Weights that the updates started from. May be repeated; later files take precedence.",
)
@click.option(
    "--base-version",
    help="Base version of the updates, if they were trained with a --base-version of your own.",
)
@click.option("--steps", type=click.IntRange(1), help="Steps that each client was asked for, if some stopped early.")
@click.option("--skip-rejected", is_flag=True, help="Merge the remaining updates if some are rejected.")
@click.option("-o", "--output", type=OutputFile(), required=True, help="File of whole weights to write (safetensors).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def merge(
    bundle: Path,
    updates: tuple[Path, ...],
    weights: tuple[Path, ...],
    base_version: str | None,
    steps: int | None,
    skip_rejected: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Average updates of `profl-edge train`, and write whole weights for the next training.

    Every update is checked as in a round of a run. It must have started from the bundle's initial weights with
    --weights laid over them, must have the tensors of its program, and must not be an outlier. Updates are weighted by
    their numbers of examples.
    """
    from server.finished.merge import merge_updates, refuse_rejected, write_merged
    from server.finished.weight_layers import lay_weights

    opened = _opened(bundle)
    base = lay_weights(opened, weights)
    asked_version = base.version if base_version is None else base_version
    merged, tensors = merge_updates(opened, updates, base, base_version=asked_version, steps=steps)
    if merged.updates and (skip_rejected or len(merged.rejected) > 1):
        for client, reason in merged.rejected.items():
            click.echo(f"rejected {client}: {reason}", err=True)
    refuse_rejected(merged, skip=skip_rejected)
    version = write_merged(tensors, output, merged, opened.manifest)
    if as_json:
        report = {"output": str(output), "version": version, **msgspec.to_builtins(merged)}
        click.echo(msgspec.json.encode(report).decode())
    else:
        click.echo(f"{_table(merged)}\nwrote {output}, version {version}")


@click.command(epilog="Example: profl-server finish bundle --weights round9.safetensors -o model.safetensors")
@click.argument("bundle", type=_FILE)
@click.option(
    "--weights",
    type=_FILE,
    multiple=True,
    required=True,
    help="Trained weights. May be repeated; later files take precedence.",
)
@click.option(
    "--initial-blocks", is_flag=True, help="Allow blocks that were never trained; they keep their initial values."
)
@click.option("-o", "--output", type=OutputFile(), required=True, help="Model file to write (safetensors).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def finish(bundle: Path, weights: tuple[Path, ...], initial_blocks: bool, output: Path, as_json: bool) -> None:
    """Write the finished model, which PyTorch loads with strict=True.

    The file contains every tensor of the model's state_dict, and nothing that only training needs. Its header contains
    the model's name, its classes, and how pixels are scaled.
    """
    from server.finished.finish import Finished, initial_parts, refuse_initial
    from server.finished.finished_model import write_finished
    from server.finished.weight_layers import lay_weights

    opened = _opened(bundle)
    laid = lay_weights(opened, weights)
    parts = initial_parts(opened.manifest, laid)
    refuse_initial(parts, allowed=initial_blocks)
    model = opened.manifest.model
    count = write_finished(model, laid.tensors, output)
    finished = Finished(output=str(output), version=laid.version, tensors=count, initial=parts)
    if as_json:
        click.echo(msgspec.json.encode(finished).decode())
        return
    if parts:
        click.echo(f"at initial values: {', '.join(parts)}", err=True)
    click.echo(f"wrote {output}: {count} tensors of {model.name}, {model.classes} classes")


def _opened(path: Path) -> Bundle:
    from edge_runtime.device.prepare.bundle import open_bundle

    try:
        return open_bundle(path)
    except ProflError as error:
        raise error.at("BUNDLE", " ") from None


def _table(merged: Merge) -> str:
    """A line an update: examples, its part of the average, and how far its parameters moved each."""
    width = max(len("update"), *(len(update.update) for update in merged.updates)) + 2
    programs = max(len("program"), *(len(update.program) for update in merged.updates)) + 2
    lines = [f"{'update':<{width}}{'program':<{programs}}{'examples':>9}{'weight':>8}{'move':>11}"]
    lines += [
        f"{update.update:<{width}}{update.program:<{programs}}{update.examples:>9}{update.weight:>8.1%}"
        f"{update.move:>11.3g}"
        for update in merged.updates
    ]
    return "\n".join(lines)
