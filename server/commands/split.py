"""`profl-server split`: how a fleet file cuts its data, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.options import OutputFile


@click.command("split", epilog="Example: profl-server split --fleet examples/fleets/demo.toml -o split.svg")
@click.option("--fleet", "fleet_path", type=click.Path(path_type=Path), required=True, help="Fleet file (TOML).")
@click.option("-o", "--output", type=OutputFile(), help="Picture to write (SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def split(fleet_path: Path, output: Path | None, as_json: bool) -> None:
    """Show which examples each client gets, as a table; with -o also as a picture."""
    import msgspec

    from device_profiles.files import atomic_file
    from server.data.split_report import report_split, split_table
    from server.fleet.reading import read_fleet
    from server.fleet.words import in_words_of
    from server.report.split_picture import draw_split

    fleet = read_fleet(fleet_path)
    with in_words_of(fleet.origin, fleet.model.name):
        report = report_split(fleet)
    if output is not None:
        with atomic_file(output) as temporary:
            temporary.write_text(draw_split(report), encoding="utf-8")
    click.echo(msgspec.json.encode(report).decode() if as_json else split_table(report))
