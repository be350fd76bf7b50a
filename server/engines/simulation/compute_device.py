"""Where a simulation computes."""

from __future__ import annotations

import torch

from device_profiles.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device a fleet file names; raises UsageError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"simulation.device {name}: {reason}; use auto, cpu, or cuda where torch finds a GPU"
        ) from None
    return device
