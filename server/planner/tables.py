"""A plan as a table for a terminal. MB = 1,048,576 bytes."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.model import Partition
from device_profiles.plan import ClientPlan, Plan, StepPlan
from device_profiles.work import Joint, blocks_of
from edge_runtime.device.worker.text import tenths_up

_MB = float(1 << 20)


def plan_table(plan: Plan) -> str:
    """A line a client, a column a block: its promise in MB, or `-` without work; below it the same for distillation."""
    runs = any(_run(client, plan.partition) for step in plan.steps for client in step.clients)
    width = 13 if runs else 10
    lines = _promises("client", plan, plan.steps, width)
    if plan.distillations:
        lines += ["", *_promises("to distil", plan, plan.distillations, width)]
    lines.append(f"promises in MB, {plan.margin:.0%} above what was measured; '-': does not fit, no work in that step")
    if runs:
        lines[-1] += "; 1-2: blocks 1 to 2 are trained together"
    return "\n".join(lines)


def _run(plan: ClientPlan, partition: Partition) -> str:
    """`1-2 ` for blocks 1 to 2 together, nothing for one block alone."""
    blocks = blocks_of(plan.work, partition) if isinstance(plan.work, Joint) else None
    return f"{blocks[0]}-{blocks[1]} " if blocks is not None else ""


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
                f"{_run(own, plan.partition)}{tenths_up(own.predicted_peak_bytes or 0)}"
                if own and own.fits
                else "-" * bool(own)
            )
            cells += f"{promise:>{width}}"
        lines.append(f"{client.client:<12}{client.budget_bytes / _MB:>9.1f}{cells}".rstrip())
    shares = "".join(f"{f'{step.participation:.0%}' if step else '':>{width}}" for step in columns)
    lines.append(f"{'with work':<21}{shares}")
    return lines
