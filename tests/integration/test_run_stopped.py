"""Ctrl-C and SIGTERM while a run trains: its clients and caches go, one line says how it goes on, and it does."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support import warm

pytest.importorskip("torch", reason="both engines are set up with torch")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

ROOT = Path(__file__).resolve().parents[2]
FLEET = """
[model]
name = "cnn"
width = 4
batch = 16
partition = "0-1,2"

[data]
sources = ["digits"]
test_examples = 50

[training]
steps = 150
cache_prefix = "float32"

[freezing]
max_rounds = 2

[[clients]]
name = "a"
limit_mb = 96

[[clients]]
name = "b"
limit_mb = 96
"""


def _of_the_run(output: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(output) in word for word in process.info["cmdline"] or [])
    ]


@pytest.mark.parametrize(
    ("engine", "number"),
    [("local", signal.SIGTERM), ("simulation", signal.SIGINT)],
    ids=["local-term", "simulation-int"],
)
def test_a_run_that_is_stopped_by_a_signal_ends_its_clients_and_goes_on_later(
    engine: str, number: signal.Signals, tmp_path: Path
) -> None:
    fleet, output = tmp_path / "fleet.toml", tmp_path / "run"
    fleet.write_text(FLEET)
    command = ["run", "--fleet", fleet, "--engine", engine, "-o", output, "--no-whole-network"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = warm.Process(warm.PROFL_SERVER, command, folder=ROOT, environment=environment)
    rounds = output / "rounds.jsonl"
    deadline = time.monotonic() + 240
    while not rounds.is_file() or rounds.read_bytes().count(b"\n") < 2:
        assert server.poll() is None, server.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.send_signal(number)
    _, said = server.communicate(timeout=30)
    assert server.returncode == 130, said
    saved = json.loads((output / "state.json").read_text())["round"]
    assert said.splitlines()[-1] == (
        f"profl-server: stopped by {number.name}: the run is saved after round {saved}, continue it with --resume"
    )
    assert "Traceback" not in said and saved in (1, 2, 3)  # a line is written before its state
    assert _of_the_run(output) == []
    assert not list(output.rglob("cache-*")) and not list(output.rglob("candidate*"))
    assert not (tmp_path / "run.lock").exists()
    again = warm.run(warm.PROFL_SERVER, *command, "--resume", folder=ROOT, environment=environment)
    assert again.returncode == 0, again.stderr
    assert f"resumed after round {saved}" in again.stderr
    assert [json.loads(line)["round"] for line in rounds.read_bytes().splitlines()] == [1, 2, 3, 4]
