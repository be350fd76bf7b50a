"""The battery, where there is one that says how full it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def battery_percent(root: Path) -> float | None:
    """Charge of the first battery in percent; None without one or where it does not tell."""
    text = _read(root, "capacity")
    with suppress(ValueError):
        return min(max(float(text), 0.0), 100.0)
    return None


def charging(root: Path) -> bool | None:
    """Whether the first battery is being charged or full; None without one or where it does not tell."""
    status = _read(root, "status").lower()
    if status in ("charging", "full", "not charging"):
        return True
    return False if status == "discharging" else None


def discharging(root: Path) -> bool | None:
    """Whether the device lives on its battery."""
    state = charging(root)
    return None if state is None else not state


def _read(root: Path, name: str) -> str:
    with suppress(OSError):
        for supply in sorted((root / "sys/class/power_supply").iterdir()):
            with suppress(OSError):
                if (supply / "type").read_text().strip() == "Battery":
                    return (supply / name).read_text().strip()
    return ""
