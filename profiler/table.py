"""A device profile as a table for a terminal."""

from __future__ import annotations

from device_profiles.profile import DeviceProfile

_MB = float(1 << 20)


def profile_table(profile: DeviceProfile) -> str:
    """One line a program: predicted and measured peak, what is unexplained, its parts, seconds per step."""
    device = profile.device
    limit = (
        "no limit" if device.limit_bytes is None else f"limit {device.limit_bytes / _MB:.0f} MB, {device.limit_kind}"
    )
    lines = [
        f"{device.name}: {profile.model} on {device.cpu_model or device.architecture}, {limit}, "
        f"{profile.measurement.threads} threads (MB = 1,048,576 bytes)",
        f"{'program':<14}{'promised':>10}{'measured':>10}{'unexpl.':>9}{'base':>7}{'arena':>8}{'frozen':>8}"
        f"{'step s':>9}",
    ]
    for cost in profile.costs:
        start = f"{cost.program:<14}{cost.predicted_peak_bytes / _MB:>10.1f}"
        if not cost.fits or cost.measured_peak_bytes is None:
            lines.append(f"{start}  {cost.reason or 'does not fit'}")
            continue
        lines.append(
            f"{start}{cost.measured_peak_bytes / _MB:>10.1f}{(cost.unexplained_bytes or 0) / _MB:>9.1f}"
            f"{cost.base_bytes / _MB:>7.1f}{cost.arena_bytes / _MB:>8.1f}{cost.frozen_bytes / _MB:>8.1f}"
            f"{_seconds(cost.step_seconds_median):>9}{_above(cost.measured_peak_bytes, device.limit_bytes)}"
        )
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _above(measured_bytes: int, limit_bytes: int | None) -> str:
    """A control group does not charge file pages that another process already holds, so a peak can pass its limit."""
    return "  above the limit" if limit_bytes is not None and measured_bytes > limit_bytes else ""
