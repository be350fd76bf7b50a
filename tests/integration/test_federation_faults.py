"""A federation whose parts come, change and are killed at any moment: no finished round is lost, nothing is left."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

pytest.importorskip("torch", reason="bundles are exported with torch")
pytest.importorskip("flwr", reason="the federation runs on Flower")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from tests.support.loopback import Loopback

FLEET = """
[model]
name = "cnn"
width = 8
batch = 32
partition = "0-1,2-2"

[data]
sources = ["digits"]
test_examples = 50

[method]
freezing = "equal"

[training]
steps = 2
learning_rate = 0.05
rounds = {rounds}
clients_per_round = {clients}
spare = {spare}
min_clients = {clients}
attempts = 1000
join_seconds = 0
"""
_SERVER_APP, _SUPERLINK = "flwr_serverapp", "server.federation.flower.superlink"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    made = Loopback(tmp_path_factory.mktemp("faults"), FLEET.format(rounds=4, clients=2, spare=1), measured=True)
    try:
        made.up()
        yield made
    finally:
        made.down()


def _activity(federation: Loopback, output: str) -> dict[str, dict[str, Any]]:
    path = federation.folder / output / "federation.json"
    with contextlib.suppress(FileNotFoundError):
        return {device["name"]: device for device in json.loads(path.read_text())["devices"]}
    return {}


def _stop(process: subprocess.Popen[bytes], signum: int = signal.SIGTERM) -> None:
    process.send_signal(signum)
    process.wait(30)


def test_one_that_comes_late_and_one_with_another_budget_take_part_and_a_round_waits_for_no_spare(
    federation: Loopback,
) -> None:
    _stop(federation.processes["large"])
    federation.fleet.write_text(FLEET.format(rounds=1000, clients=1, spare=1))
    running = federation.begin("changing")
    try:
        federation.wait(running, lambda: bool(federation.rounds("changing")))
        before = _activity(federation, "changing")["small"]["budget_bytes"]
        federation.join("large")
        _stop(federation.processes["small"])
        federation.join("small", 120)

        def all_there() -> bool:
            small = _activity(federation, "changing").get("small", {})
            took_part = {client["client"] for record in federation.rounds("changing") for client in record["clients"]}
            return "large" in took_part and (small.get("budget_bytes") or 0) > before

        federation.wait(running, all_there)
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    for record in federation.rounds("changing"):
        assert 1 <= sum(client["status"] == "ok" for client in record["clients"]) <= 2
    assert any(len(record["clients"]) == 2 for record in federation.rounds("changing"))


@pytest.mark.study  # minutes
def test_random_kills_lose_no_finished_round(federation: Loopback) -> None:
    _kill_at_random(federation, "killed", kills=10, rounds=4, seed=1)


@pytest.mark.study
@pytest.mark.timeout(1800)
def test_fifty_random_kills_lose_no_finished_round(federation: Loopback) -> None:
    _kill_at_random(federation, "often", kills=50, rounds=20, seed=2)


def _kill_at_random(federation: Loopback, output: str, *, kills: int, rounds: int, seed: int) -> None:
    """Kill a device, its training, the server app or the SuperLink until so many were killed, and start again what no
    other process starts: devices, as a service manager does, the run, and a federation that has given up."""
    draw = random.Random(seed)
    federation.fleet.write_text(FLEET.format(rounds=rounds, clients=2, spare=1))
    running: subprocess.Popen[str] | None = None
    finished: list[dict[str, Any]] = []
    killed: list[str] = []
    end = time.monotonic() + 60 * kills
    while True:
        assert time.monotonic() < end, f"{killed}\n{federation.logs()}"
        if running is None:
            running = federation.begin(output, *(["--resume"] if (federation.folder / output).exists() else []))
        if not (federation.home / "running.json").exists():  # it gives up a SuperLink that ends again and again
            federation.server("federation", "up", str(federation.home), "--detach")
        for name, process in federation.processes.items():
            if process.poll() is not None:
                federation.join(name)
        _wait(running, draw.uniform(0.2, 3.0) if len(killed) < kills else 1.0)
        now = federation.rounds(output)
        assert now[: len(finished)] == finished, killed
        finished = now
        if running.poll() is not None:
            if running.returncode == 0:
                break
            running = None
        elif len(killed) < kills and (what := _kill_one(federation, draw)) is not None:
            killed.append(what)
    assert [record["round"] for record in finished] == list(range(1, rounds + 1))
    assert (federation.folder / output / "model.safetensors").exists()
    assert len(killed) == kills, f"the run was over after {killed}"
    _nothing_left(federation, output)


def _wait(running: subprocess.Popen[str], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.communicate(timeout=seconds)


def _kill_one(federation: Loopback, draw: random.Random) -> str | None:
    """What was killed, None where there was nothing of the kind just now."""
    kind = draw.choice(["device"] * 3 + ["training"] * 4 + ["server app", "SuperLink"])
    if kind == "server app":
        return kind if federation.kill(_SERVER_APP) else None
    if kind == "SuperLink":
        return kind if federation.kill(_SUPERLINK) else None
    name = draw.choice(sorted(federation.processes))
    with contextlib.suppress(psutil.NoSuchProcess):
        device = psutil.Process(federation.processes[name].pid)
        if kind == "device":
            device.kill()
            return f"{kind} {name}"
        children = device.children(recursive=True)
        if children:
            draw.choice(children).kill()
            return f"{kind} of {name}"
    return None


def _nothing_left(federation: Loopback, output: str) -> None:
    """Of trainings and server apps no process, and of updates on their way no file."""
    assert not list((federation.folder / output / "clients").glob("arrived-*"))
    for process in federation.processes.values():
        _stop(process)
    place = str(federation.folder)
    end = time.monotonic() + 20
    while left := _of(place, "edge_runtime") + _of(place, _SERVER_APP):
        assert time.monotonic() < end, left
        time.sleep(0.2)
    for name in federation.processes:
        federation.join(name)


def _of(place: str, part: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if part in line and (place in line or process.cwd().startswith(place)):
                found.append(line[-200:])
    return found
