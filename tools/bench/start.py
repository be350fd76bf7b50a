"""From the start of a process to its first finished step, beside what `import torch` alone takes.

    python -m tools.bench.start --model resnet18 --block 3 --threads 1

The time of `profl-edge train --steps 1` is taken from outside, interpreter and exit included, so it is an upper bound.
What it needs beside the step itself is its time less the median step of a longer run. All processes take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):  # run by its path instead of with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click
import numpy as np

from device_profiles.errors import ExecutionError
from edge_runtime.device.data.npz_writing import write_npz

ROOT = Path(__file__).resolve().parents[2]
_PROFL_EDGE = [sys.executable, "-m", "edge_runtime.device"]
_SHAPE = (3, 32, 32)
_CLASSES = 10


def _run(command: list[str]) -> tuple[float, str]:
    """Seconds of a whole process, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise ExecutionError(f"{' '.join(command)}: {done.stderr.strip()}")
    return seconds, done.stdout


@click.command(epilog="Example: python -m tools.bench.start --model resnet18 --block 3 --threads 1")
@click.option("--model", default="resnet18", show_default=True, help="A built-in model.")
@click.option("--block", type=click.IntRange(1), default=3, show_default=True, help="Block, counted from 1.")
@click.option("--batch", default=32, show_default=True, help="Examples in one step.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--repetitions", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def start(model: str, block: int, batch: int, threads: int, repetitions: int, as_json: bool) -> None:
    """Time from process start to the first finished step."""
    wholes, steps, imports = [], [], []
    with tempfile.TemporaryDirectory(prefix="profl-start-") as name:
        bundle, data = Path(name) / "bundle", Path(name) / "data.npz"
        _run(
            [*_PROFL_EDGE, "export", "--model", model, "--block", str(block), "--batch", str(batch), "-o", str(bundle)]
        )
        images = np.random.default_rng(0).integers(0, 256, (4 * batch, *_SHAPE), np.uint8)
        write_npz(data, images, np.arange(len(images)) % _CLASSES)
        train = [*_PROFL_EDGE, "train", str(bundle), "--block", str(block), "--data", f"npz:{data}"]
        train += ["--threads", str(threads), "--json"]
        for repetition in range(repetitions):
            wholes.append(_run([*train, "--steps", "1"])[0])
            steps.append(json.loads(_run([*train, "--steps", "8"])[1])["step_seconds_median"])
            imports.append(_run([sys.executable, "-c", "import torch"])[0])
            click.echo(f"{repetition + 1} of {repetitions}: {wholes[-1]:.2f} s, step {steps[-1]:.2f} s", err=True)
    found = {
        "model": model,
        "block": block,
        "threads": threads,
        "process_seconds": statistics.median(wholes),
        "step_seconds": statistics.median(steps),
        "beside_the_step_seconds": statistics.median(w - s for w, s in zip(wholes, steps, strict=True)),
        "import_torch_seconds": statistics.median(imports),
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"profl-edge train --steps 1, {model} block {block}, threads {threads}: medians of {repetitions}")
    click.echo(f"  whole process      {found['process_seconds']:.2f} s")
    click.echo(f"  one step           {found['step_seconds']:.2f} s")
    click.echo(f"  beside the step    {found['beside_the_step_seconds']:.2f} s")
    click.echo(f"  python -c 'import torch' alone: {found['import_torch_seconds']:.2f} s")


if __name__ == "__main__":
    start()
