"""The demo of a federation: what was interrupted finds its server again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")

from server.federation.home.folder import FederationFolder, Settings
from tools import federation_demo


def _commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What the demo would start, in two starts of it; nothing is started."""
    ran: list[list[str]] = []
    place = FederationFolder.at(tmp_path / "federation")

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        if "up" in command:
            place.make()
            place.keep(Settings(port=4711, address="127.0.0.1:4711"))
        return subprocess.CompletedProcess(command, 0, json.dumps({"invitation": "word"}))

    class Client:
        def __init__(self, command: list[str], **_: Any) -> None:
            ran.append(command)
            state = Path(command[command.index("--state-dir") + 1])
            state.mkdir(exist_ok=True)
            (state / "settings.json").touch()

        def send_signal(self, _: int) -> None:
            """It was never there."""

        def wait(self, _: float) -> None:
            """It was never there."""

    monkeypatch.setattr(federation_demo.subprocess, "run", run)
    monkeypatch.setattr(federation_demo.subprocess, "Popen", Client)
    monkeypatch.setattr(federation_demo, "_parts", lambda *_: dict.fromkeys(federation_demo.DEVICES, tmp_path))
    for _ in range(2):
        federation_demo.main.main(["-o", str(tmp_path)], standalone_mode=False)
    return ran


def test_started_again_it_is_at_the_same_port_and_its_clients_call_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = _commands(monkeypatch, tmp_path)
    assert ["--port" in command for command in ran if "up" in command] == [True, False]
    joined = [command for command in ran if "join" in command]
    assert ["--invite" in command for command in joined] == [True] * 3 + [False] * 3
    assert ["127.0.0.1:4711" in command for command in joined] == [False] * 3 + [True] * 3
