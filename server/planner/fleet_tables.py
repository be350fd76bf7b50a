"""A plan for a fleet as tables for a terminal. MB = 1,048,576 bytes."""

from __future__ import annotations

from device_profiles.trades import TRADES, Trade
from device_profiles.work import first_trained_unit
from edge_runtime.device.worker.text import tenths_up
from server.planner.fleet_plan import FleetClass, FleetPlan

_MB = float(1 << 20)
_TRADED: dict[Trade, str] = {
    "recompute": "layers are computed again in the backward pass, with the same result",
    "bfloat16": "the momentum is stored in bfloat16",
    "micro2": "the batch is trained in two parts",
    "micro4": "the batch is trained in four parts",
}


def fleet_table(plan: FleetPlan) -> str:
    """A line a class: its clients and budgets, and in each step the first unit that it trains, with the promise."""
    steps = len(plan.steps.steps)
    cell = 16 if all(trade == "default" for _, trade in plan.programs) else 26
    width = max([len("kind"), *(len(one.kind) for one in plan.classes)]) + 2
    titles = "".join(f"{f'step {number}':>{cell}}" for number in range(1, steps + 1))
    lines = [f"{'kind':<{width}}{'clients':>9}{'budget MB':>18}{titles}"]
    for one in plan.classes:
        least, most = f"{one.least_budget_bytes / _MB:.1f}", f"{one.most_budget_bytes / _MB:.1f}"
        budget = least if least == most else f"{least} to {most}"
        cells = "".join(f"{_cell(one, step):>{cell}}" for step in range(steps))
        lines.append(f"{one.kind:<{width}}{one.clients:>9}{budget:>18}{cells}")
    lines.append(
        "'3: 80.5' trains from unit 3 to the step's end in 80.5 MB; 'head', the output module alone; '-', nothing"
    )
    taken = {trade for _, trade in plan.programs}
    lines += [f"'{trade}': {_TRADED[trade]}" for trade in TRADES if trade in taken and trade in _TRADED]
    return "\n".join(lines)


def why(plan: FleetPlan, client: str, units: tuple[str, ...]) -> str:
    """What one client does in each step, and with which of the others."""
    one = plan.class_named(client)
    lines = [
        f"{client}: {one.kind}, in a class of {one.clients} with {one.least_budget_bytes / _MB:.1f} to "
        f"{one.most_budget_bytes / _MB:.1f} MB"
    ]
    for number, (step, work, promise) in enumerate(
        zip(plan.steps.steps, one.works, one.promised_bytes, strict=True), 1
    ):
        end = f"step {number}, up to unit {step.last_unit} {units[step.last_unit]}"
        if work is None or promise is None:
            lines.append(f"{end}: nothing; not even the output module fits")
            continue
        first = first_trained_unit(work)
        what = "the output module alone" if first > step.last_unit else f"from unit {first} {units[first]}"
        trade = "" if one.trade(number - 1) == "default" else f" ({one.trade(number - 1)})"
        lines.append(f"{end}: trains {what}{trade}, promised {tenths_up(promise)} MB")
    return "\n".join(lines)


def _cell(one: FleetClass, step: int) -> str:
    work, promise = one.works[step], one.promised_bytes[step]
    if work is None or promise is None:
        return "-"
    first = first_trained_unit(work)
    trade = one.trade(step)
    end = "" if trade == "default" else f" {trade}"
    return f"{'head' if first > work.last_unit else first}: {tenths_up(promise)}{end}"
