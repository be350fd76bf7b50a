"""Networks at 3x224x224, batch 8, and a GRU: seconds of export, and steps of the whole network beside PyTorch eager.

    python -m tools.bench.images --network resnet18 --pairs 3
    python -m tools.bench.images --document          # all of them, into docs/performance.md

Needs timm (`pip install timm`). Seconds are those of the processor (user and system) with one thread, so that other
processes count as little as possible: of a step, what a process of several steps takes beyond one of a single step.
Processes take turns; a ratio is taken within a pair.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from device_profiles.contract import MANIFEST_NAME
from device_profiles.errors import ExecutionError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.work import Grow
from edge_runtime.ending import as_process, exit_status
from tools.bench.image_networks import CLASSES, NETWORKS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- images: made by tools/bench/images -->\n", "<!-- end of images -->\n"
_MB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was measured of a network; pairs of ours and PyTorch's seconds."""

    network: str
    export_seconds: float
    pairs: tuple[tuple[float, float], ...]
    peaks: tuple[int, int]
    blocks_bytes: tuple[int, int]

    def row(self) -> str:
        """Of the table."""
        ours, torch = (statistics.median(side) for side in zip(*self.pairs, strict=True))
        ratios = sorted(mine / other for mine, other in self.pairs)
        blocks = " to ".join(dict.fromkeys(f"{count / _MB:.0f}" for count in self.blocks_bytes))
        return (
            f"| {self.network} | {self.export_seconds:.1f} | {ours:.3f} | {torch:.3f} | "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {self.peaks[0] / _MB:.0f} | "
            f"{self.peaks[1] / _MB:.0f} | {blocks} |"
        )


def _run(command: list[str]) -> tuple[dict[str, float], float]:
    """The JSON that a command prints, {} where it prints none, and the seconds of the processor that it took."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ExecutionError(f"{' '.join(command[1:5])}: {lines[-1]}")
    took = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return json.loads(done.stdout) if done.stdout.startswith("{") else {}, took


def _export(network: str, output: Path, blocks: int) -> tuple[Manifest, float]:
    command = [
        sys.executable,
        "-m",
        "edge_runtime.device",
        "export",
        "--model",
        f"tools.bench.image_networks:{network}",
    ]
    entry = NETWORKS[network]
    command += ["--input", "x".join(map(str, entry.shape)), "--classes", str(CLASSES)]
    command += ["--batch", str(entry.batch), "--blocks", str(blocks)]
    _, seconds = _run([*command, "-o", str(output)])
    return read_json(output / MANIFEST_NAME, Manifest), seconds


def _step_seconds(command: list[str], option: str, steps: int) -> tuple[float, int]:
    """Of one step, and the peak of the process with several."""
    _, one = _run([*command, option, "1"])
    report, several = _run([*command, option, str(1 + steps)])
    return (several - one) / steps, int(report["measured_peak_bytes"])


def measured(network: str, *, pairs: int) -> Found:
    """Export and train `network`, each step of ours before one of PyTorch's."""
    steps = NETWORKS[network].steps
    with tempfile.TemporaryDirectory(prefix="profl-images-") as folder:
        whole = Path(folder) / "whole"
        _export(network, whole, 1)
        manifest, seconds = _export(network, Path(folder) / "blocks", NETWORKS[network].blocks)
        ours = [sys.executable, "-m", "edge_runtime.device", "bench", str(whole), "--block", "1", "--warmup", "0"]
        ours += ["--threads", "1", "--json"]
        torch = [sys.executable, "-m", "tools.bench.image_step", network]
        taken, peaks = [], (0, 0)
        for _ in range(pairs):
            mine, own_peak = _step_seconds(ours, "--steps", steps)
            other, other_peak = _step_seconds(torch, "--steps", steps)
            taken.append((mine, other))
            peaks = (max(peaks[0], own_peak), max(peaks[1], other_peak))
    planned = [p.memory.total_bytes(1) for p in manifest.programs if isinstance(p.work, Grow)]
    return Found(
        network=network,
        export_seconds=seconds,
        pairs=tuple(taken),
        peaks=peaks,
        blocks_bytes=(min(planned), max(planned)),
    )


def table(found: list[Found]) -> str:
    """A row a network."""
    head = (
        "| network | export, s | step, s | PyTorch, s | ratio | peak, MB | PyTorch, MB | plans of its blocks, MB |",
        "|---|---|---|---|---|---|---|---|",
    )
    return "\n".join([*head, *(one.row() for one in found)]) + "\n"


def write_document(text: str) -> None:
    """Put the table in the place of the one in docs/performance.md."""
    whole = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    _, _, behind = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + text + END + behind, encoding="utf-8")


@click.command(epilog="Example: python -m tools.bench.images --network vit_tiny")
@click.option("--network", "asked", type=click.Choice(list(NETWORKS)), multiple=True, help="[default: all]")
@click.option("--pairs", type=click.IntRange(1), default=3, show_default=True, help="Processes of each side.")
@click.option("--document", is_flag=True, help="Write the table into docs/performance.md instead of printing it.")
def main(asked: tuple[str, ...], pairs: int, document: bool) -> None:
    """Export and train networks at 224x224, beside PyTorch."""
    found = []
    for network in asked or NETWORKS:
        found.append(measured(network, pairs=pairs))
        click.echo(found[-1].row(), err=True)
    if document:
        write_document(table(found))
    else:
        click.echo(table(found), nl=False)


if __name__ == "__main__":
    sys.exit(
        as_process(
            "tools.bench.images", lambda: exit_status("tools.bench.images", lambda: main.main(standalone_mode=False))
        )
    )
