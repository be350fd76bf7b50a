"""`profl-profile show`."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.device.commands.options import json_option, print_json
from profiler.commands.options import (
    html_option,
    profiles_argument,
    read_profiles,
    read_timelines,
    timelines_option,
    write_page,
)


@click.command(epilog="Example: profl-profile show phone.json board.json --html profiles.html")
@profiles_argument
@html_option
@timelines_option
@json_option
def show(profiles: tuple[Path, ...], html: Path | None, timelines: tuple[Path, ...], as_json: bool) -> None:
    """Show device profiles as tables.

    `shipped:NAME` is a profile that comes with the package. With --json, one object has all profiles in `profiles`.
    """
    from profiler.report.table import profile_table

    read = read_profiles(profiles)
    drawn = [profile.with_timelines(read_timelines(timelines)) for profile in read]
    for path, profile in zip(profiles, drawn, strict=True):
        profile.check(str(path))
    write_page(html, drawn)
    if as_json:
        print_json({"profiles": read})
    else:
        click.echo("\n\n".join(profile_table(profile) for profile in read))
