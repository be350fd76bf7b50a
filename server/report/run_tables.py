"""Runs as a table and as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from server.report.runs import Run, measure_of
from server.rounds.summary_table import summary_table

_MB = float(1 << 20)


def report_table(runs: Sequence[Run]) -> str:
    """The summary of one finished run; a line a run otherwise. Below it what went wrong on the way."""
    troubles = [said for run in runs for said in run.troubles()]
    if len(runs) == 1 and runs[0].summary is not None:
        return "\n".join([summary_table(runs[0].summary), *troubles])
    lines = [f"{'run':<24}{'method':<14}{'rounds':>7}{measure_of(runs):>10}{'participation':>15}{'MB moved':>10}"]
    for run in runs:
        known = as_object([run])["runs"][0]
        value = known["accuracy"] if run.measure == "accuracy" else known["test_loss"]
        reached = "-" if value is None else f"{value:.4f}"
        share = "-" if run.summary is None else f"{run.summary.participation:.0%}"
        lines.append(
            f"{run.name:<24}{run.fleet.method.name:<14}{len(run.rounds):>7}{reached:>10}{share:>15}"
            f"{known['bytes_moved'] / _MB:>10.1f}"
        )
    return "\n".join([*lines, *troubles])


def as_object(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page shows, for scripts; `accuracy` (or `test_loss`) of a run that goes on is the
    last one evaluated, or None; `curve` is that measure over the rounds."""
    return {"runs": [_run_object(run) for run in runs]}


def _run_object(run: Run) -> dict[str, Any]:
    rounds, values = run.reached()
    seconds = run.device_seconds()
    last = values[-1] if values else None
    done = run.summary
    return {
        "run": run.name,
        "method": run.fleet.method.name,
        "finished": run.summary is not None,
        "rounds": len(run.rounds),
        "accuracy": done.accuracy if done is not None else last if run.measure == "accuracy" else None,
        "test_loss": done.test_loss if done is not None else last if run.measure == "loss" else None,
        "device_seconds": seconds[run.rounds[-1].round],
        "bytes_moved": sum(record.bytes_down + record.bytes_up for record in (*run.rounds, *run.given_up)),
        "curve": list(zip(rounds, values, strict=True)),
        "summary": None if run.summary is None else msgspec.to_builtins(run.summary),
    }
