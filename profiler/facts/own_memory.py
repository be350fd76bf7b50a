"""Resident memory of this very process."""

from __future__ import annotations

from pathlib import Path


def resident_bytes() -> int:
    """Resident memory now (VmRSS); raises OSError where the system does not tell."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int:
    """Highest resident memory so far (VmHWM); raises OSError where the system does not tell."""
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
