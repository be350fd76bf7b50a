"""The result of a run as a table for a terminal. MB = 1,048,576 bytes."""

from __future__ import annotations

from device_profiles.work import Head, Joint, parse_work
from edge_runtime.device.worker.text import tenths_up
from server.planner.whole_network import WholeNetwork
from server.rounds.summary import ClientSummary, StepSummary, Summary

_MB = float(1 << 20)
_MOST_ROWS = 24
"""A fleet of more clients is told in a line instead of one for each."""


def summary_table(summary: Summary) -> str:
    """Devices, stages and result of a run."""
    lines = _devices(summary)
    judged = "test loss" if summary.accuracy is None else "accuracy"
    lines += ["", f"{'stage':<11}{'rounds':>7}{'devices':>9}{judged:>10}  ended because"]
    for step in summary.steps:
        title = f"{step.stage} {step.block}" if step.block else step.stage
        lines.append(f"{title:<11}{step.rounds:>7}{step.participation:>9.0%}{_judged(step):>10}  {step.froze_because}")
    lines += summary.planned_again
    lines += ["", f"{judged.removeprefix('test ')} on the test set of {summary.data}: {_judged(summary)}"]
    if summary.epsilon is not None:
        lines.append(f"differential privacy of a device: epsilon {summary.epsilon:.2f} at delta {summary.delta:g}")
    whole = summary.whole_network
    if whole is not None:
        lines += [*_measured(whole, len(summary.clients)), *unmeasured(whole)]
    lines.append(f"finished model: {summary.model_file} (docs/models.md says how PyTorch loads it)")
    return "\n".join(lines)


def _judged(result: Summary | StepSummary) -> str:
    """Accuracy; the loss where outputs are compared with numbers."""
    value = result.test_loss if result.accuracy is None else result.accuracy
    return "-" if value is None else f"{value:.4f}"


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
        blocks = _trained(client)
        trouble = f"  {client.failures} failed" if client.failures else ""
        lines.append(
            f"{client.client:<12}{client.limit_bytes / _MB:>9.1f}{_promised(client.predicted_peak_bytes):>10}"
            f"{_mb(client.measured_peak_bytes):>10}{client.rounds:>8}  {blocks}{trouble}"
        )
    return lines


def _trained(client: ClientSummary) -> str:
    """Blocks; of a step in which it trained other units than the block's, which ones."""
    blocks = ", ".join(str(block) if block else "all" for block in client.blocks) or "none"
    parts = [work for name in client.trained if isinstance(work := parse_work(name), (Joint, Head))]
    if not parts:
        return blocks
    units = [f"{p.first_unit}-{p.last_unit}" if isinstance(p, Joint) else "output module" for p in parts]
    return f"{blocks} (units {', '.join(units)})"


def _promised(count: int) -> str:
    return tenths_up(count) if count else "-"


def _mb(count: int) -> str:
    return f"{count / _MB:.1f}" if count else "-"
