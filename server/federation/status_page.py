"""The state of a federation as a page that loads itself again."""

from __future__ import annotations

from collections.abc import Sequence

from server.federation.status import FederationStatus
from server.federation.status_table import cells, clock, headline, run_lines
from server.report.rendering import render

REFRESH_SECONDS = 5
_WIDTH, _HEIGHT, _EDGE = 600, 160, 24


def status_page(status: FederationStatus) -> str:
    """One page without scripts; names and states come from strangers and are escaped."""
    return render(
        "federation.html",
        refresh=REFRESH_SECONDS,
        headline=headline(status),
        run=run_lines(status),
        written=clock(status.written_at),
        rows=[(device.connection, cells(device, status.written_at)) for device in status.devices],
        curve=_curve(status.accuracies),
        last_accuracy=status.accuracies[-1] if status.accuracies else None,
        box=(_WIDTH, _HEIGHT, _EDGE),
    )


def _curve(accuracies: Sequence[tuple[int, float]]) -> str:
    """Points of a line through all accuracies, from 0 at the bottom to 1 at the top; "" for fewer than two."""
    if len(accuracies) < 2:
        return ""
    first, last = accuracies[0][0], accuracies[-1][0]
    across = (_WIDTH - 2 * _EDGE) / max(1, last - first)
    step = max(1, len(accuracies) // _WIDTH)  # no more points than the picture has columns
    drawn = [*accuracies[:-1:step], accuracies[-1]]
    return " ".join(
        f"{_EDGE + across * (number - first):.1f},{_HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * min(1.0, max(0.0, y)):.1f}"
        for number, y in drawn
    )
