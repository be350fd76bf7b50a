"""kill -9 of the server alone, while its clients train: none may outlive it and stand in the way of `--resume`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from tests.support import warm

pytest.importorskip("torch", reason="the bundle is exported with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

ROOT = Path(__file__).resolve().parents[2]
FLEET = """
[model]
name = "cnn"
width = 4
batch = 16
partition = "0-2"

[data]
sources = ["digits"]
test_examples = 50

[training]
steps = 600
learning_rate = 0.01
min_clients = 2

[freezing]
max_rounds = 1

[[clients]]
name = "a"
limit_mb = 96

[[clients]]
name = "b"
limit_mb = 96
"""


def _clients(output: Path) -> list[psutil.Process]:
    """Processes that train for the run in `output`, whoever their parent is."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "train" in words and str(output / "bundle") in words:
            found.append(process)
    return found


def test_clients_end_with_the_server_and_the_run_resumes(tmp_path: Path) -> None:
    fleet, output = tmp_path / "fleet.toml", tmp_path / "run"
    fleet.write_text(FLEET)
    command = ["run", "--fleet", fleet, "-o", output, "--no-whole-network"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = warm.Process(warm.PROFL_SERVER, command, folder=ROOT, environment=environment)
    deadline = time.monotonic() + 240
    while len(list((output / "clients").rglob("*.lock"))) < 2:
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    server.kill()
    server.wait()
    started = time.monotonic()
    while _clients(output):
        assert time.monotonic() < started + 2, "a client outlived its server"
        time.sleep(0.01)
    again = warm.run(warm.PROFL_SERVER, *command, "--resume", folder=ROOT, environment=environment)
    assert again.returncode == 0, again.stderr
    lines = [json.loads(line) for line in (output / "rounds.jsonl").read_bytes().splitlines()]
    assert [line["round"] for line in lines] == [1]
    assert [client["status"] for client in lines[0]["clients"]] == ["ok", "ok"]


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    fleet, output = tmp_path / "fleet.toml", tmp_path / "run"
    fleet.write_text(FLEET)
    command = ["run", "--fleet", fleet, "-o", output, "--resume"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = warm.Process(warm.PROFL_SERVER, command, folder=ROOT, environment=environment)
    try:
        deadline = time.monotonic() + 60
        while not (output / "settings.sha256").exists():
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        second = warm.run(warm.PROFL_SERVER, *command, folder=ROOT, environment=environment)
        assert second.returncode == 2
        assert "another process is writing it" in second.stderr and second.stderr.count("\n") == 1
    finally:
        first.kill()
        first.wait()
