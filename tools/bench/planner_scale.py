"""`python -m tools.bench.planner_scale`: how long a plan for many clients takes, and how much memory.

Every fleet is planned in a process of its own, against every run of units of a model of 31 units and the output modules
alone: 527 candidates. Budgets are drawn uniformly from 100 to 900 MB, to the byte, so that hardly two clients have the
same; clients are of `--kinds` kinds of device whose needs differ. Prints seconds of the plan and of reading its file
again (wall clock, and CPU where other work shares the machine), the file's size, and VmHWM of the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from device_profiles.files import read_json, write_json
from server.fleet.population import NameRun
from server.planner.fleet_plan import Clients, FleetPlan, Kind, plan_fleet

UNITS = 31
_MB = 1 << 20


@click.command()
@click.option("--clients", type=click.IntRange(min=1), multiple=True, default=(1_000, 10_000, 100_000, 1_000_000))
@click.option("--kinds", type=click.IntRange(min=1), default=8, show_default=True, help="Kinds of device.")
@click.option("--one", is_flag=True, help="Measure in this process, and print JSON.")
def main(clients: tuple[int, ...], kinds: int, one: bool) -> None:
    """Print a line a fleet."""
    if one:
        click.echo(json.dumps(_measure(clients[0], kinds)))
        return
    head = ["clients", "classes", "steps", "plan s", "CPU s", "read s", "CPU s", "file MB", "peak MB"]
    click.echo("".join(f"{title:>9}" for title in head))
    for count in clients:
        command = [sys.executable, "-m", "tools.bench.planner_scale", "--one"]
        command += ["--clients", str(count), "--kinds", str(kinds)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        click.echo(
            f"{count:>9}{found['classes']:>9}{found['steps']:>9}{found['plan']:>9.3f}{found['plan_cpu']:>9.3f}"
            f"{found['read']:>9.3f}{found['read_cpu']:>9.3f}{found['file'] / _MB:>9.2f}{found['peak'] / _MB:>9.0f}"
        )


def _measure(count: int, kinds: int) -> dict[str, float]:
    generator = np.random.default_rng(0)
    clients = Clients(
        budgets=generator.integers(100 * _MB, 900 * _MB, size=count),
        kinds=generator.integers(0, kinds, size=count),
        runs=(NameRun(prefix="client", count=count),),
    )
    devices = [_kind(number) for number in range(kinds)]
    started, cpu = time.perf_counter(), time.process_time()
    plan = plan_fleet(devices, clients, UNITS, coverage=0.1)
    found: dict[str, float] = {"plan": time.perf_counter() - started, "plan_cpu": time.process_time() - cpu}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        write_json(path, plan)
        started, cpu = time.perf_counter(), time.process_time()
        assert len(read_json(path, FleetPlan).column) == count
        found |= {"read": time.perf_counter() - started, "read_cpu": time.process_time() - cpu}
        found["file"] = path.stat().st_size
    return found | {"classes": len(plan.classes), "steps": len(plan.steps.steps), "peak": _peak_bytes()}


def _kind(number: int) -> Kind:
    """A model whose first units hold large activations and whose last ones many weights, as convolutions do."""
    activations = [100 * 0.9**unit * (1 + number / 100) for unit in range(UNITS)]
    weights = [0.3 * 1.12**unit for unit in range(UNITS)]
    needs = {
        end: [
            int(
                _MB
                * (20 + sum(activations[first : end + 1]) + 3 * sum(weights[first : end + 1]) + sum(weights[:first]))
            )
            for first in range(end + 2)
        ]
        for end in range(UNITS)
    }
    return Kind(name=f"kind{number}", needs=needs)


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) << 10


if __name__ == "__main__":
    main()
