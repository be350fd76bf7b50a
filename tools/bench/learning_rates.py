"""What learning rates train every block of a model from its bundle's own initial weights.

    python -m tools.bench.learning_rates --model resnet18 --data mnist-5k --rate 0.01 --rate 0.05

exports the model with either optimizer at the default batch, trains every block and distils every stand-in at each rate
for some steps, and prints the smoothed loss at the end beside that of the first batch, or the step at which it was no
number any more.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from device_profiles.optimizers import OPTIMIZERS

_PURPOSES = ("grow", "distill")


def trained(bundle: Path, block: int, purpose: str, rate: float, data: str, steps: int) -> str:
    """`2.41 -> 0.52`, or where it ended otherwise."""
    command = [sys.executable, "-m", "edge_runtime.device", "train", str(bundle), "--block", str(block)]
    command += ["--purpose", purpose, "--lr", str(rate), "--data", data, "--steps", str(steps), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        step = re.search(r"step (\d+) of", done.stderr)
        if step is None:
            raise click.ClickException(done.stderr.strip())
        return f"NaN, step {step[1]}"
    report = json.loads(done.stdout)
    return f"{report['loss_first']:.2f} -> {report['loss_smoothed']:.2f}"


def exported(model: str, optimizer: str, options: tuple[str, ...], folder: Path) -> tuple[Path, int]:
    """The bundle and its number of blocks."""
    bundle = folder / f"{model}-{optimizer}"
    command = [
        sys.executable,
        "-m",
        "edge_runtime.device",
        "export",
        "--model",
        model,
        "--optimizer",
        optimizer,
    ]
    subprocess.run([*command, *options, "-o", str(bundle)], check=True, capture_output=True)
    return bundle, len(json.loads((bundle / "manifest.json").read_text())["partition"]["blocks"])


@click.command()
@click.option("--model", required=True, help="Built-in model.")
@click.option("--data", required=True, help="As of `profl-edge train`.")
@click.option("--optimizer", "optimizers", multiple=True, default=tuple(OPTIMIZERS), show_default=True)
@click.option("--rate", "rates", type=float, multiple=True, required=True, help="May be repeated.")
@click.option("--purpose", "purposes", type=click.Choice(_PURPOSES), multiple=True, default=_PURPOSES)
@click.option("--steps", default=60, show_default=True)
@click.option("--option", "options", multiple=True, help="Of `profl-edge export`, such as --option=--width=16.")
def main(
    model: str,
    data: str,
    optimizers: tuple[str, ...],
    rates: tuple[float, ...],
    purposes: tuple[str, ...],
    steps: int,
    options: tuple[str, ...],
) -> None:
    """Print a row a block and optimizer, a column a rate."""
    click.echo("| model | optimizer | block | " + " | ".join(f"{rate:g}" for rate in rates) + " |")
    with tempfile.TemporaryDirectory() as folder:
        for optimizer in optimizers:
            bundle, blocks = exported(model, optimizer, options, Path(folder))
            for purpose in purposes:
                for block in range(1 if purpose == "grow" else 2, blocks + 1):
                    found = [trained(bundle, block, purpose, rate, data, steps) for rate in rates]
                    name = f"{block}" if purpose == "grow" else f"{block}, distilled"
                    click.echo(f"| {model} | {optimizer} | {name} | " + " | ".join(found) + " |")


if __name__ == "__main__":
    main()
