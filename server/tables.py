"""Plans and results as tables for a terminal. MB = 1,048,576 bytes."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.plan import ClientPlan, Plan, StepPlan
from edge_runtime.device.worker.text import tenths_up
from server.summary import Summary
from server.whole_network import WholeNetwork

_MB = float(1 << 20)


def plan_table(plan: Plan) -> str:
    """A line a client, a column a block: its promise in MB, or `-` without work; below it the same for distillation."""
    runs = any(_run(client) for step in plan.steps for client in step.clients)
    width = 13 if runs else 10
    lines = _promises("client", plan, plan.steps, width)
    if plan.distillations:
        lines += ["", *_promises("to distil", plan, plan.distillations, width)]
    lines.append(f"promises in MB, {plan.margin:.0%} above what was measured; '-': does not fit, no work in that step")
    if runs:
        lines[-1] += "; 1-2: blocks 1 to 2 are trained together"
    return "\n".join(lines)


def _run(plan: ClientPlan) -> str:
    """`1-2 ` for blocks 1 to 2 together, nothing for one block alone."""
    name = plan.program or ""
    prefix = "joint-blocks"
    return f"{name.removeprefix(prefix)} " if name.startswith(prefix) else ""


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
            promise = f"{_run(own)}{tenths_up(own.predicted_peak_bytes or 0)}" if own and own.fits else "-" * bool(own)
            cells += f"{promise:>{width}}"
        lines.append(f"{client.client:<12}{client.budget_bytes / _MB:>9.1f}{cells}".rstrip())
    shares = "".join(f"{f'{step.participation:.0%}' if step else '':>{width}}" for step in columns)
    lines.append(f"{'with work':<21}{shares}")
    return lines


_MOST_ROWS = 24
"""A fleet of more clients is told in a line instead of one for each."""


def summary_table(summary: Summary) -> str:
    """Devices, stages and result of a run."""
    lines = _devices(summary)
    lines += ["", f"{'stage':<11}{'rounds':>7}{'devices':>9}{'accuracy':>10}  ended because"]
    for step in summary.steps:
        title = f"{step.stage} {step.block}" if step.block else step.stage
        lines.append(
            f"{title:<11}{step.rounds:>7}{step.participation:>9.0%}{step.accuracy:>10.4f}  {step.froze_because}"
        )
    lines += ["", f"accuracy on the test set of {summary.data}: {summary.accuracy:.4f}"]
    whole = summary.whole_network
    if whole is not None:
        lines += [*_measured(whole, len(summary.clients)), *unmeasured(whole)]
    lines.append(f"finished model: {summary.model_file} (docs/models.md says how PyTorch loads it)")
    return "\n".join(lines)


def _measured(whole: WholeNetwork, clients: int) -> list[str]:
    said = [
        f"{devices} of {clients} with {runtime} (needs {peak / _MB:.0f} MB)"
        for runtime, devices, peak in (
            ("PyTorch", whole.pytorch_devices, whole.pytorch_peak_bytes),
            ("this runtime", whole.native_devices, whole.native_peak_bytes),
        )
        if devices is not None and peak is not None
    ]
    return [f"devices that could train the whole network at once (measured): {', '.join(said)}"] if said else []


def unmeasured(whole: WholeNetwork) -> list[str]:
    """A line for each runtime that could not train the whole network on this machine at all, with its reason."""
    failures = (("PyTorch", whole.pytorch_failure), ("this runtime", whole.native_failure))
    return [f"the whole network could not be trained at once with {name}: {why}" for name, why in failures if why]


def _devices(summary: Summary) -> list[str]:
    clients = summary.clients
    if len(clients) > _MOST_ROWS:
        limits = [client.limit_bytes / _MB for client in clients]
        idle = sum(not client.rounds for client in clients)
        return [
            f"{len(clients)} clients of {min(limits):.0f} to {max(limits):.0f} MB, largest promise "
            f"{max(client.predicted_peak_bytes for client in clients) / _MB:.0f} MB; {idle} never trained, "
            f"{sum(client.failures for client in clients)} failures"
        ]
    lines = [f"{'device':<12}{'limit MB':>9}{'promised':>10}{'measured':>10}{'rounds':>8}  blocks trained"]
    for client in clients:
        blocks = ", ".join(str(block) if block else "all" for block in client.blocks) or "none"
        trouble = f"  {client.failures} failed" if client.failures else ""
        lines.append(
            f"{client.client:<12}{client.limit_bytes / _MB:>9.1f}{_promised(client.predicted_peak_bytes):>10}"
            f"{_mb(client.measured_peak_bytes):>10}{client.rounds:>8}  {blocks}{trouble}"
        )
    return lines


def _promised(count: int) -> str:
    return tenths_up(count) if count else "-"


def _mb(count: int) -> str:
    return f"{count / _MB:.1f}" if count else "-"
