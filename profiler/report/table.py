"""A device profile as a table for a terminal: who, what, how much, and how sure."""

from __future__ import annotations

from device_profiles.profile import Cost, DeviceProfile
from edge_runtime.device.worker.text import tenths_up

_MB = float(1 << 20)


def profile_table(profile: DeviceProfile) -> str:
    """One line a program: predicted and measured peak, what is unexplained, its parts, seconds per step."""
    width = max([14, *(len(cost.program) + 1 for cost in profile.costs)])
    lines = [
        device_line(profile),
        f"{'program':<{width}}{'batch':>6}{'promised':>10}{'measured':>10}{'unexpl.':>9}{'base':>7}{'params':>8}"
        f"{'optim.':>8}{'activ.':>8}{'other':>7}{'frozen':>8}{'step s':>9}{'prefix':>8}",
    ]
    lines += [_row(cost, profile.device.limit_bytes, width) for cost in profile.costs]
    throttled = [c for c in profile.costs if c.conditions is not None and c.conditions.throttled]
    if throttled:
        reasons = sorted({c.conditions.throttled_because or "" for c in throttled if c.conditions is not None})
        lines.append(f"~ seconds are not those of a free machine: {reasons[0]}")
    return "\n".join(lines)


def device_line(profile: DeviceProfile) -> str:
    """Device, model, limit and threads in one line."""
    device = profile.device
    limit = (
        "no limit" if device.limit_bytes is None else f"limit {device.limit_bytes / _MB:.0f} MB, {device.limit_kind}"
    )
    runtime = "" if profile.runtime == "native" else ", PyTorch"
    return (
        f"{device.name}: {profile.model} on {device.cpu_model or device.architecture}{runtime}, {limit}, "
        f"{profile.measurement.threads} threads (MB = 1,048,576 bytes)"
    )


def _row(cost: Cost, limit_bytes: int | None, width: int) -> str:
    batch = "-" if cost.batch is None else str(cost.batch)
    start = f"{cost.program:<{width}}{batch:>6}{tenths_up(cost.predicted_peak_bytes):>10}"
    if not cost.fits or cost.measured_peak_bytes is None:
        return f"{start}  {cost.reason or 'does not fit'}"
    other = cost.arena_bytes - cost.parameters_bytes - cost.optimizer_state_bytes - cost.activations_bytes
    other += cost.workspace_bytes + cost.staging_bytes
    slow = "~" if cost.conditions is not None and cost.conditions.throttled else " "
    return (
        f"{start}{cost.measured_peak_bytes / _MB:>10.1f}{(cost.unexplained_bytes or 0) / _MB:>9.1f}"
        f"{cost.base_bytes / _MB:>7.1f}{cost.parameters_bytes / _MB:>8.1f}{cost.optimizer_state_bytes / _MB:>8.1f}"
        f"{cost.activations_bytes / _MB:>8.1f}{other / _MB:>7.1f}{cost.frozen_bytes / _MB:>8.1f}"
        f"{_seconds(cost.step_seconds_median):>8}{slow}{_seconds(cost.prefix_seconds):>8}"
        f"{_above(cost.measured_peak_bytes, limit_bytes)}"
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _above(measured_bytes: int, limit_bytes: int | None) -> str:
    """A control group does not charge file pages that another process already holds, so a peak can pass its limit."""
    return "  above the limit" if limit_bytes is not None and measured_bytes > limit_bytes else ""
