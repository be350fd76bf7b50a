"""A plan for a fleet as one page without scripts: who holds what, and how many train each unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from server.planner.fleet_plan import Clients, FleetPlan
from server.planner.fleet_tables import fleet_table
from server.planner.tables import steps_table
from server.report.drawing import COLOURS, FAINT, svg
from server.report.rendering import render

_MB = float(1 << 20)
_WIDTH = 9.0
_BINS = 40
_MOST_CLASSES = 40
"""Rows of the table on the page; a large fleet has more classes than anybody reads."""


def fleet_plan_page(plan: FleetPlan, clients: Clients, units: Sequence[str], title: str) -> str:
    """The page of a plan for `clients`, whose model has these units."""
    return render(
        "fleet_plan.html",
        title=title,
        clients=len(clients.budgets),
        steps=steps_table(plan.steps, units).split("\n"),
        more=_one_more(plan, units),
        classes=fleet_table(plan).split("\n"),
        shown_classes=_MOST_CLASSES,
        pictures={
            "Memory of the fleet, and what each step needs": Markup(svg(memory(plan, clients))),
            "Clients that train each unit": Markup(svg(coverage(plan, units))),
        },
    )


def _one_more(plan: FleetPlan, units: Sequence[str]) -> str:
    """What one more step would bring, as a sentence."""
    more = plan.with_one_more
    if more is None:
        return "Every unit ends a step already: there is no further cut."
    ends = {step.last_unit for step in plan.steps.steps}
    cut = next(step.last_unit for step in more.steps if step.last_unit not in ends)
    before, after = min(plan.steps.coverage), min(more.coverage)
    gain = "as before" if after == before else f"instead of {before:.1%}"
    return (
        f"One more step, ending with unit {cut} {units[cut]}, would let at least {after:.1%} of the clients train "
        f"every unit, {gain}."
    )


def memory(plan: FleetPlan, clients: Clients) -> Figure:
    """How many clients have how much memory; for each step, what its pieces of work are promised to need."""
    figure = Figure(figsize=(_WIDTH, 4.2))
    axes = figure.subplots()
    axes.hist(clients.budgets / _MB, bins=_BINS, color="#c9d3df")
    axes.set_xlabel("memory that a client may use, MB")
    axes.set_ylabel("clients")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for number, colour in zip(range(len(plan.steps.steps)), COLOURS, strict=False):
        needs = {one.promised_bytes[number] for one in plan.classes if one.promised_bytes[number] is not None}
        for place, need in enumerate(sorted(need for need in needs if need is not None)):
            axes.axvline(
                need / _MB, color=colour, linewidth=1, label=f"step {number + 1}" if place == 0 else "_", alpha=0.8
            )
    axes.legend(
        frameon=False,
        title="promised for the work in",
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(plan.steps.steps),
        alignment="left",
    )
    return figure


def coverage(plan: FleetPlan, units: Sequence[str]) -> Figure:
    """The share of the clients that train each unit, by step, and the share that was asked for."""
    figure = Figure(figsize=(_WIDTH, 3.8))
    axes = figure.subplots()
    places = np.arange(len(units))
    steps = plan.steps.steps
    width = 0.8 / len(steps)
    for number, (step, colour) in enumerate(zip(steps, COLOURS, strict=False)):
        own = places[: step.last_unit + 1] + (number - (len(steps) - 1) / 2) * width
        axes.bar(own, step.coverage, width=width, color=colour, label=f"step {number + 1}")
    axes.axhline(plan.steps.wanted, color=FAINT, linewidth=1, linestyle="--")
    axes.annotate(
        f"asked for: {plan.steps.wanted:.0%}",
        (1.005, plan.steps.wanted),
        xycoords=("axes fraction", "data"),
        va="center",
        color=FAINT,
    )
    axes.set_xticks(places, [f"{unit} {name}" for unit, name in enumerate(units)], rotation=45, ha="right")
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("clients")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.18), ncols=len(steps))
    return figure
