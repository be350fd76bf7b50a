"""`profl-server report`: one or several runs as one page without scripts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from server.report import figures
from server.report.drawing import svg
from server.report.rendering import render
from server.report.run_tables import report_table
from server.report.runs import Run, measure_of


def report_page(runs: Sequence[Run]) -> str:
    """The page: results first, then how they came about. Several runs are compared, one is shown in full."""
    measure = measure_of(runs).capitalize()
    drawn = {
        f"{measure} over rounds": figures.measure_over_rounds(runs),
        f"{measure} over training time": figures.measure_over_device_seconds(runs),
        "Communication": figures.communication(runs),
    }
    if len(runs) == 1:
        if any(record.effective_movement is not None for record in runs[0].rounds):  # a window is over
            drawn["Effective movement"] = figures.effective_movement(runs[0])
        drawn |= {
            "Participation": figures.participation(runs[0]),
            "Memory": figures.memory(runs[0]),
        }
    return render(
        "report.html",
        runs=runs,
        table=report_table(runs).split("\n"),
        pictures={title: _picture(figure) for title, figure in drawn.items()},
    )


def _picture(figure: Figure) -> Markup:
    """Matplotlib has escaped its texts."""
    return Markup(svg(figure))
