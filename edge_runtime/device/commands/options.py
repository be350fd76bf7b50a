"""Option types and output that the commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edge_runtime.device.data.open import KNOWN
from edge_runtime.device.limits.priority import LEAST_URGENT

FILE = click.Path(path_type=Path)
bundle_argument = click.argument("bundle", type=FILE)
json_option = click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object.")
data_option = click.option("--data", required=True, help=f"Data set: {KNOWN}.")
weights_option = click.option(
    "--weights",
    type=FILE,
    multiple=True,
    help="Safetensors file that replaces initial weights of the bundle. May be repeated; later files take precedence.",
)
initial_prefix_option = click.option(
    "--initial-prefix", is_flag=True, help="Keep the bundle's initial values for blocks that are in no --weights file."
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=None,
    help="Number of threads [default: the physical cores, without slow ones].",
)

nice_option = click.option(
    "--nice",
    "niceness",
    type=click.IntRange(0, LEAST_URGENT),
    help="Niceness of the process: 19 leaves other programs the most time [default: that of the command].",
)


def thread_count(threads: int | None) -> int:
    """The option's value, or the physical cores that this process may use, without slow ones."""
    if threads is not None:
        return threads
    from edge_runtime.device.machine.cores import usable_cores

    return usable_cores()


def megabytes(count: int) -> str:
    """Bytes as megabytes of 1,048,576."""
    return f"{count / (1 << 20):.1f} MB"


def note(text: str) -> None:
    """Say to a terminal, before the work begins, what the report will say as well; errors stay one line elsewhere."""
    if sys.stderr.isatty():
        click.echo(f"note: {text}", err=True)


def print_json(value: Any) -> None:
    """Print one JSON object."""
    import msgspec

    click.echo(msgspec.json.encode(value))
