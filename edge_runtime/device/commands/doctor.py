"""`profl-edge doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edge_runtime.device.commands.options import json_option, print_json
from edge_runtime.device.data.open import KNOWN
from edge_runtime.options import Size

if TYPE_CHECKING:
    from edge_runtime.device.doctor.row import Row


@click.command(epilog="Example: profl-edge doctor --data npz:mine.npz --limit 128MB")
@click.option("--data", help=f"Also say whether these examples can be read: {KNOWN}.")
@click.option(
    "--limit", "limit_bytes", type=Size(), metavar="SIZE", help="Also say whether a training can live under this limit."
)
@json_option
def doctor(data: str | None, limit_bytes: int | None, as_json: bool) -> int:
    """Show what this machine offers a training and what is missing, with the remedy.

    The exit status is 1 where training cannot work.
    """
    from edge_runtime.device.doctor.examination import examine

    rows = examine(data=data, limit_bytes=limit_bytes)
    works = not any(row.stops for row in rows)
    if as_json:
        named = [{"name": row.name, "state": row.state, "found": row.found, "remedy": row.remedy} for row in rows]
        print_json({"works": works, "rows": named})
    else:
        for line in table(rows):
            click.echo(line)
        click.echo("training works here" if works else "training cannot work here: see what is missing")
    return 0 if works else 1


def table(rows: list[Row]) -> list[str]:
    """A line for each row, and one below it for its remedy."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.state:<8} {row.name:<{width}}  {row.found}")
        if row.remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {row.remedy}")
    return lines
