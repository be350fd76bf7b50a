"""A unit of systemd that starts the client with the device, and again whenever it ends by a fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from edge_runtime.device.federation.settings import Settings

_NICENESS = 10
_STOP_SECONDS = 60
"""For the training's checkpoint, and to leave the federation."""


def unit_file(settings: Settings, command: Sequence[str], *, user: str, folder: str) -> str:
    """The text of a unit that runs `command` as `user` in `folder`."""
    lines = [
        "# Save as /etc/systemd/system/profl-edge.service, then: systemctl enable --now profl-edge",
        "[Unit]",
        f"Description=profl-edge: {settings.name} trains in the federation of {settings.address}",
        "Wants=network-online.target",
        "After=network-online.target time-sync.target",
        "",
        "[Service]",
        f"User={user}",
        f"WorkingDirectory={_escaped(folder)}",
        f"ExecStart={' '.join(_quoted(word) for word in command)}",
        "Restart=on-failure",
        "RestartSec=30",
        "RestartPreventExitStatus=2",
        "SuccessExitStatus=130",
        "KillMode=mixed",
        f"TimeoutStopSec={_STOP_SECONDS}",
        f"Nice={_NICENESS if settings.niceness is None else settings.niceness}",
        "IOSchedulingClass=idle",
        "NoNewPrivileges=yes",
        "ProtectSystem=full",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines)


def start_command(state: str) -> list[str]:
    """The command that starts the client of a state folder again; everything else is kept there."""
    return [sys.executable, "-P", "-m", "edge_runtime.device", "join", "--state-dir", os.path.abspath(state)]


def _quoted(word: str) -> str:
    """A word of ExecStart: `%` and `$` would be replaced there."""
    escaped = _escaped(word).replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if escaped != word or any(c.isspace() or c in "'\";" for c in word) else word


def _escaped(word: str) -> str:
    return word.replace("%", "%%")
