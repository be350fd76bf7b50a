"""A plan as a table for a terminal. MB = 1,048,576 bytes."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.model import Partition
from device_profiles.plan import ClientPlan, Plan, StepPlan
from device_profiles.promise import margin_text
from device_profiles.work import Head, Joint, blocks_of, label
from edge_runtime.device.worker.text import tenths_up
from server.planner.planner import Candidate
from server.planner.steps import Steps

_MB = float(1 << 20)


def plan_table(plan: Plan) -> str:
    """A line a client, a column a block: its promise in MB, or `-` without work; below it the same for distillation."""
    runs = any(_run(client, plan.partition) for step in plan.steps for client in step.clients)
    width = 13 if runs else 10
    lines = _promises("client", plan, plan.steps, width)
    if plan.distillations:
        lines += ["", *_promises("to distil", plan, plan.distillations, width)]
    lines.append(f"promises in MB, {margin_text(plan.margin)}; '-': does not fit, no work in that step")
    if runs:
        lines[-1] += f"; {_explained(plan)}"
    if any(_traded(client, plan.partition) for step in plan.steps for client in step.clients):
        lines[-1] += "; ~: in a variant that takes less memory, which the plan file names"
    return "\n".join(lines)


def _run(plan: ClientPlan, partition: Partition) -> str:
    """`1-2 ` for blocks 1 to 2 together, `u4-8 ` for units that are no blocks, `head `; nothing for one block alone."""
    if isinstance(plan.work, Head):
        return "head "
    if not isinstance(plan.work, Joint):
        return ""
    blocks = blocks_of(plan.work, partition)
    return f"u{plan.work.first_unit}-{plan.work.last_unit} " if blocks is None else f"{blocks[0]}-{blocks[1]} "


def _traded(plan: ClientPlan, partition: Partition) -> str:
    """`~` for work in a variant that is not the default one."""
    return "" if plan.work is None or plan.program == label(plan.work, partition) else "~"


def _explained(plan: Plan) -> str:
    """What the labels of the plan mean."""
    works = [client.work for step in plan.steps for client in step.clients]
    joint = [work for work in works if isinstance(work, Joint)]
    said = []
    if any(blocks_of(work, plan.partition) is not None for work in joint):
        said.append("1-2: blocks 1 to 2 are trained together")
    if any(blocks_of(work, plan.partition) is None for work in joint):
        said.append("u4-8: units 4 to 8")
    if any(isinstance(work, Head) for work in works):
        said.append("head: the output module alone")
    return "; ".join(said)


def _promises(title: str, plan: Plan, steps: Sequence[StepPlan], width: int) -> list[str]:
    """Columns are those of `plan.steps`, so that both tables have a block below itself."""
    known = {step.block: step for step in steps}
    columns = [known.get(step.block) for step in plan.steps]
    head = "".join(f"{f'block {step.block}' if step else '':>{width}}" for step in columns)
    lines = [f"{title:<12}{'limit MB':>9}{head}"]
    for position, client in enumerate(plan.clients):
        cells = ""
        for step in columns:
            own = step.clients[position] if step else None
            promise = (
                f"{_run(own, plan.partition)}{_traded(own, plan.partition)}{tenths_up(own.predicted_peak_bytes or 0)}"
                if own and own.fits
                else "-" * bool(own)
            )
            cells += f"{promise:>{width}}"
        lines.append(f"{client.client:<12}{client.budget_bytes / _MB:>9.1f}{cells}".rstrip())
    shares = "".join(f"{f'{step.participation:.0%}' if step else '':>{width}}" for step in columns)
    lines.append(f"{'with work':<21}{shares}")
    return lines


def steps_table(steps: Steps, units: Sequence[str]) -> str:
    """A line a step: its units, and which shares of the clients train them; below it the units that too few train."""
    known = all(step.seconds is not None and step.rounds is not None for step in steps.steps)
    times = f"{'rounds':>8}{'s a round':>11}" if known else ""
    lines = [f"{'step':<6}{'ends with':<22}{'with work':>10}{'least':>8}{times}   clients that train each unit, in %"]
    start = 0
    for number, step in enumerate(steps.steps, start=1):
        shares = " ".join(f"{share:.0%}".rstrip("%") for share in step.coverage)
        least = min(step.coverage[start:])
        end = f"{step.last_unit} {units[step.last_unit]}"
        times = f"{step.rounds:>8}{step.seconds:>11.3g}" if known else ""
        lines.append(f"{number:<6}{end:<22}{step.participation:>10.0%}{least:>8.0%}{times}   {shares}")
        start = step.last_unit + 1
    if known:
        whole = sum((step.rounds or 0) * (step.seconds or 0.0) for step in steps.steps)
        lines.append(f"predicted: at most {_time(whole)} for a client slower than nine of ten, with its transfers")
    for unit in steps.short:
        share = steps.coverage[unit]
        few = f"{share:.1%} of the clients train it" if share else "nobody can train it: it keeps its initial values"
        lines.append(f"unit {unit} {units[unit]}: {few}; {steps.wanted:.0%} was asked for")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    """A long time, to two digits: `40 seconds`, `3.5 hours`."""
    for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {name}"
    return f"{seconds:.2g} seconds"


def candidates_table(steps: Sequence[Sequence[Candidate]]) -> str:
    """Everything that one client could do, by step: promise and seconds, where the promise is from, and what it does or
    why not."""
    names = [candidate.program for candidates in steps for candidate in candidates]
    width = max(22, *(len(name) + 2 for name in names))
    lines = [f"{'step':<6}{'program':<{width}}{'promise MB':>12}{'s a step':>10}  {'':<11}"]
    for number, candidates in enumerate(steps, start=1):
        plans = [candidate.plan for candidate in candidates]
        chosen = next((plan for plan in plans if plan.fits), None)
        for candidate in candidates:
            plan = candidate.plan
            promise = "-" if plan.predicted_peak_bytes is None else tenths_up(plan.predicted_peak_bytes)
            origin = "measured" if plan.measured else "predicted"
            said = "is what it does" if plan is chosen else plan.reason or "would fit as well"
            seconds = "-" if candidate.seconds is None else f"{candidate.seconds:.3g}"
            lines.append(
                f"{number:<6}{candidate.program:<{width}}{promise:>12}{seconds:>10}  {origin:<11}{said}".rstrip()
            )
    return "\n".join(lines)
