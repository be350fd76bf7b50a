"""`profl-edge import-executorch`."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.device.commands.options import FILE, bundle_argument, json_option, print_json, weights_option
from edge_runtime.options import OutputFile


@click.command(
    "import-executorch",
    epilog="Example: profl-edge import-executorch BUNDLE --block 2 --parameters phone.safetensors -o "
    "update.safetensors",
)
@bundle_argument
@click.option("--block", type=click.IntRange(1), required=True, help="Block that was trained, counted from 1.")
@click.option(
    "--parameters",
    type=FILE,
    required=True,
    help="Safetensors file of the parameters by name, with how they were trained as metadata (docs/phones.md).",
)
@weights_option
@click.option("-o", "--output", type=OutputFile(), required=True, help="Update file to write (safetensors).")
@json_option
def import_executorch(
    bundle: Path, block: int, parameters: Path, weights: tuple[Path, ...], output: Path, as_json: bool
) -> None:
    """Turn parameters that ExecuTorch's TrainingModule trained into an update of BUNDLE.

    BUNDLE is of the same model and blocks as the programs of `profl-edge export --target executorch`, and --weights
    are those that these were exported with: they say what the training started from.
    """
    import msgspec

    from edge_runtime.device.prepare.bundle import open_bundle
    from edge_runtime.device.prepare.executorch_parameters import import_parameters
    from edge_runtime.device.prepare.laid_weights import LaidWeights
    from edge_runtime.device.prepare.lock import exclusive

    opened = open_bundle(bundle)
    program = opened.program_for("grow", block)
    laid = LaidWeights(opened, weights)
    with exclusive(output):
        imported = import_parameters(parameters, program, laid, output)
    metadata = imported.metadata
    if as_json:
        print_json(
            {**msgspec.structs.asdict(metadata), "kept_running_statistics": imported.kept, "output": str(output)}
        )
        return
    click.echo(f"{program.name}: {metadata.steps} steps, loss {metadata.loss_first:.4f} -> {metadata.loss_last:.4f}")
    if imported.kept:
        click.echo(f"kept           {len(imported.kept)} running statistics, which the file does not have")
    click.echo(f"update         {output}")
