"""What this process is: its resident memory, and the settings that keep it small."""

from __future__ import annotations

import os
from pathlib import Path

_M_ARENA_MAX = -8
_PR_SET_PDEATHSIG = 1


def make_light() -> None:
    """Keep numpy's BLAS on one thread and malloc on one arena; call before numpy is imported.

    The kernels bring their own threads; OpenBLAS would only add buffers for each core.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def end_with_parent(parent: int, signal_number: int) -> None:
    """Ask Linux to send `signal_number` to this process when its parent dies; a dead parent ends it at once."""
    prctl = getattr(_c_library(), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal_number)


def resident_bytes() -> int:
    """Resident memory of this process now (VmRSS)."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int:
    """Highest resident memory of this process so far (VmHWM)."""
    return _status_bytes("VmHWM")


def resident_parts() -> tuple[int, int]:
    """Anonymous and file-backed resident bytes now: what only this process holds, and what it may share."""
    return _status_bytes("RssAnon"), _status_bytes("RssFile")


def page_faults() -> tuple[int, int]:
    """Page faults of this process so far: minor, and major ones that waited for a disk."""
    # The name in parentheses may hold spaces; minflt and majflt are the eighth and tenth field behind it.
    fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return int(fields[7]), int(fields[9])


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _c_library() -> object:
    import ctypes

    return ctypes.CDLL(None)
