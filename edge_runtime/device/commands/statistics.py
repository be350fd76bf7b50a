"""`profl-edge statistics`."""

from __future__ import annotations

import click

from edge_runtime.device.commands.options import data_option, json_option, print_json

_DIGITS = 6


@click.command(epilog="Example: profl-edge statistics --data 'csv:iris.csv?label=species'")
@data_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Use at most N examples, drawn in proportion to the classes.",
)
@json_option
def statistics(data: str, limit: int, as_json: bool) -> None:
    """Show mean and deviation of each channel or feature of the training examples, as options of an export."""
    from edge_runtime.device.data.moments import moments
    from edge_runtime.device.data.open import open_raw

    means, deviations = moments(open_raw(data, split="train"), data, limit=limit)
    if as_json:
        print_json({"mean": means, "std": deviations})
        return
    written = [",".join(f"{value:.{_DIGITS}g}" for value in values) for values in (means, deviations)]
    click.echo(f"--mean={written[0]} --std={written[1]}")
