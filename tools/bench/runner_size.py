"""What `profl-train`, the runner without Python, takes: on disk, and in memory before it trains.

    python -m tools.bench.runner_size --bundle BUNDLE --data npz:mine.npz

Builds the program for every machine whose compiler is there. The base is measured on this machine, as the promise
counts it: everything is ready, all code of the kernels is resident, and nothing of the arena was touched.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

if __package__ in (None, ""):  # run by its path instead of with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from device_profiles.errors import ExecutionError, ProflError
from device_profiles.promise import VARIATION_BYTES
from tools.cross.machines import MACHINES
from tools.cross.runner import build

MEGABYTE = 1 << 20


def sizes() -> dict[str, int]:
    """Bytes of the program for each machine that it can be built for here."""
    found = {}
    for name in MACHINES:
        try:
            found[name] = build(name).stat().st_size
        except ExecutionError as error:
            click.echo(f"{name}: {error}", err=True)
    return found


def base(program: Path, bundle: Path, data: str, block: int) -> dict[str, int]:
    """Bytes of the base, and promised and measured peak, of one step of a block with one thread."""
    command = [str(program), str(bundle), "--block", str(block), "--data", data, "--steps", "1", "--threads", "1"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExecutionError((done.stderr.strip().splitlines() or ["profl-train failed"])[-1])
    report = json.loads(done.stdout)
    return {
        "base_bytes": report["base_bytes"] - VARIATION_BYTES,
        "predicted_peak_bytes": report["predicted_peak_bytes"],
        "measured_peak_bytes": report["measured_peak_bytes"],
    }


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--data", required=True, help="idx:DIR or npz:FILE, unpacked.")
@click.option("--block", type=click.IntRange(1), default=1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(bundle: Path, data: str, block: int, as_json: bool) -> None:
    """Print sizes and the base."""
    try:
        found = sizes()
        measured = base(build(platform.machine()), bundle, data, block)
    except ProflError as error:
        click.echo(f"runner-size: error: {error}", err=True)
        sys.exit(error.exit_status)
    if as_json:
        click.echo(json.dumps({"program_bytes": found, **measured}))
        return
    for name, size in found.items():
        click.echo(f"{name:<10} {size / MEGABYTE:5.2f} MB on disk")
    for name, size in measured.items():
        click.echo(f"{name:<22} {size / MEGABYTE:6.2f} MB")


if __name__ == "__main__":
    main()
