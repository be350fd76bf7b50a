"""How a process learns that it was started under a hard memory limit: a variable of its environment."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_profiles.contract import LimitKind

_VARIABLE = "PROFL_EDGE_LIMIT"
_KINDS: tuple[LimitKind, ...] = ("cgroup-v1", "cgroup-v2", "rlimit")


def marked(environment: dict[str, str], kind: LimitKind) -> dict[str, str]:
    """`environment` for a child that this process starts under a limit of `kind`."""
    return {**environment, _VARIABLE: f"{kind}:{os.getpid()}"}


def current_limit() -> LimitKind:
    """How `start_limited` limited this very process; `none` where it did not."""
    named, _, parent = os.environ.get(_VARIABLE, "").partition(":")
    # A child of a limited process inherits the variable; only the process that was started under the limit has this
    # parent.
    if parent == str(os.getppid()):
        for kind in _KINDS:
            if named == kind:
                return kind
    return "none"
