"""`profl-server report`: show runs as tables and as a page."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edge_runtime.options import OutputFile


@click.command("report", epilog="Example: profl-server report runs/demo --html report.html")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--html", type=OutputFile(), help="HTML page to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def report(runs: tuple[Path, ...], html: Path | None, as_json: bool) -> None:
    """Show one run in full, or compare several, as a table; with --html also as a page with figures.

    A run can be shown while it is in progress.
    """
    from server.report.run_tables import as_object, report_table
    from server.report.runs import read_run

    read = [read_run(folder) for folder in runs]
    if html is not None:
        from server.report.page import report_page
        from server.report.writing import write_page

        write_page(html, report_page(read))
    click.echo(msgspec.json.encode(as_object(read)).decode() if as_json else report_table(read))
