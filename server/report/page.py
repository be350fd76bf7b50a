"""`profl-server report`: one or several runs as one page without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from server.report import figures
from server.report.run_tables import report_table
from server.report.runs import Run

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1d2733; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
pre { background: #f5f7f9; padding: .8rem; overflow-x: auto; font-size: 12.5px; }
p.note { color: #55606e; } svg { max-width: 100%; height: auto; }
"""


def report_page(runs: Sequence[Run]) -> str:
    """The page: results first, then how they came about. Several runs are compared, one is shown in full."""
    title = ", ".join(run.name for run in runs)
    parts = [f"<h1>{escape(title)}</h1>"]
    for run in runs:
        if run.summary is None:
            parts.append(f'<p class="note">{escape(run.name)}: not finished, {len(run.rounds)} rounds so far.</p>')
    parts.append(f"<pre>{escape(report_table(runs))}</pre>")
    parts.append(_figure("Accuracy over rounds", figures.svg(figures.accuracy_over_rounds(runs))))
    parts.append(_figure("Accuracy over training time", figures.svg(figures.accuracy_over_device_seconds(runs))))
    parts.append(_figure("Communication", figures.svg(figures.communication(runs))))
    if len(runs) == 1:
        run = runs[0]
        parts.append(_figure("Effective movement", figures.svg(figures.effective_movement(run))))
        parts.append(_figure("Participation", figures.svg(figures.participation(run))))
        parts.append(_figure("Memory", figures.svg(figures.memory(run))))
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>\n<body>\n{body}\n</body></html>\n"
    )


def _figure(title: str, picture: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{picture}"
