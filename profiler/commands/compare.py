"""`profl-profile compare`."""

from __future__ import annotations

from pathlib import Path

import click

from device_profiles.errors import UsageError
from edge_runtime.device.commands.options import json_option, print_json
from edge_runtime.options import Finite
from profiler.commands.options import html_option, profiles_argument, read_profiles, write_page


@click.command(epilog="Example: profl-profile compare before.json after.json")
@profiles_argument
@click.option(
    "--threshold",
    type=Finite(0, 1),
    default=0.02,
    show_default=True,
    help="Relative difference of memory from which values are marked; for time, five times as much.",
)
@html_option
@json_option
def compare(profiles: tuple[Path, ...], threshold: float, html: Path | None, as_json: bool) -> None:
    """Compare profiles with the first one, side by side; differences are marked."""
    from profiler.report.compare import comparison_of, comparison_table

    if len(profiles) < 2:
        raise UsageError("compare: requires two or more profiles; profl-profile show shows a single one")
    read = read_profiles(profiles)
    found = comparison_of(read, threshold=threshold)
    write_page(html, read, found)
    if as_json:
        print_json(found)
    else:
        click.echo(comparison_table(found))
