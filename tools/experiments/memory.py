"""`python -m tools.experiments.memory`: measured peaks of every growing step beside whole-model training, by model.

Every number is VmHWM of a process of its own: `profl-edge bench` for the light runtime, `server.planner.pytorch_step`
for PyTorch. The paper's claim (peak memory -57.4 % at most) is about steps against whole-model training at batch 64.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from device_profiles.errors import ExecutionError
from device_profiles.files import atomic_file, write_json
from edge_runtime.device.machine.readings import cpu_model
from edge_runtime.export.models import built_in
from server.fleet.model import ModelSettings

_MB = float(1 << 20)
_EXPORT = (sys.executable, "-m", "edge_runtime.device", "export")
MODELS = ("resnet18", "resnet34", "vgg11_bn", "vgg16_bn")


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """Peaks of the light runtime in bytes: the whole network, and every growing step."""

    whole: int
    steps: tuple[int, ...]


class ModelMemory(msgspec.Struct, frozen=True, kw_only=True):
    """One model: PyTorch's whole network in bytes, and the light runtime without and with `--recompute`.

    `recomputed` has everything computed again in the backward pass that can be: the fewest bytes, in steps and in the
    whole network alike.
    """

    model: str
    batch: int
    whole_pytorch: int
    plain: Peaks
    recomputed: Peaks | None = None


@click.command()
@click.option("--batch", type=click.IntRange(min=2), default=64, show_default=True, help="Examples in a step.")
@click.option("--models", default=",".join(MODELS), show_default=True, help="Which ones.")
@click.option("--recompute/--no-recompute", default=True, show_default=True, help="Fewest bytes as well (slow export).")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("runs/experiments/memory"))
def main(batch: int, models: str, recompute: bool, output: Path) -> None:
    """Measure, then write results.json and results.md; a model that is measured already is not measured again."""
    measured = []
    for model in models.split(","):
        path = output / f"{model}-batch{batch}.json"
        if not path.is_file():
            click.echo(f"{model}, batch {batch}", err=True)
            write_json(path, _measure(model, batch, recompute=recompute))
        measured.append(msgspec.json.decode(path.read_bytes(), type=ModelMemory))
    with atomic_file(output / f"batch{batch}.md") as temporary:
        temporary.write_text(_table(measured, batch), encoding="utf-8")
    click.echo(_table(measured, batch))


def _measure(model: str, batch: int, *, recompute: bool) -> ModelMemory:
    settings = ModelSettings(name=model, batch=batch)
    pytorch = _json([sys.executable, "-m", "server.planner.pytorch_step", msgspec.json.encode(settings).decode(), "1"])
    with tempfile.TemporaryDirectory() as folder:
        return ModelMemory(
            model=model,
            batch=batch,
            whole_pytorch=pytorch["measured_peak_bytes"],
            plain=_peaks(model, batch, Path(folder), recompute=False),
            recomputed=_peaks(model, batch, Path(folder), recompute=True) if recompute else None,
        )


def _peaks(model: str, batch: int, folder: Path, *, recompute: bool) -> Peaks:
    blocks = len(built_in(model).default_blocks)
    asked = [("--blocks", "1"), *[("--block", str(block)) for block in range(1, blocks + 1)]]
    measured = []
    for number, options in enumerate(asked):
        bundle = folder / f"{number}-{recompute}"
        more = ("--recompute", _fewest(model, batch, options, bundle)) if recompute else ()
        _export(model, batch, bundle, *options, *more)
        measured.append(_peak(bundle, max(number, 1)))
    return Peaks(whole=measured[0], steps=tuple(measured[1:]))


def _fewest(model: str, batch: int, options: tuple[str, ...], bundle: Path) -> str:
    """The smallest arena that recomputing reaches, from what the exporter says to a budget that nothing can keep."""
    command = [*_EXPORT, "--model", model, "--batch", str(batch), *options, "--recompute", "1MB", "-o", str(bundle)]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    found = re.search(r"the arena of block \d+ needs ([0-9.]+) MB", said)
    if found is None:
        raise ExecutionError(f"{model}: the smallest arena is not in what the export said: {said.strip()}")
    return f"{float(found.group(1)) + 0.1:.1f}MB"


def _export(model: str, batch: int, folder: Path, *more: str) -> None:
    command = [*_EXPORT, "--model", model, "--batch", str(batch), *more, "-o", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _peak(bundle: Path, block: int) -> int:
    command = [sys.executable, "-m", "edge_runtime.device", "bench", str(bundle), "--block", str(block)]
    return _json([*command, "--steps", "1", "--warmup", "1", "--threads", "1", "--json"])["measured_peak_bytes"]


def _json(command: list[str]) -> dict[str, int]:
    answer: dict[str, int] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def _table(measured: list[ModelMemory], batch: int) -> str:
    lines = [
        f"Command: `python -m tools.experiments.memory --batch {batch}`. "
        f"Machine: {cpu_model() or 'unknown processor'}, one thread. VmHWM of the whole process, Python included, in "
        "MB (1 MB = 1,048,576 bytes); width 64, 3x32x32, SGD with momentum, output modules included.",
        "",
        "| model | whole, PyTorch | | whole, light runtime | steps 1, 2, ... | largest step against whole | "
        "against whole, PyTorch |",
        "|---|---|---|---|---|---|---|",
    ]
    for own in measured:
        for name, peaks in (("as exported", own.plain), ("`--recompute`", own.recomputed)):
            if peaks is None:
                continue
            steps = " / ".join(f"{step / _MB:.0f}" for step in peaks.steps)
            largest = max(peaks.steps)
            lines.append(
                f"| {own.model} | {own.whole_pytorch / _MB:.0f} | {name} | {peaks.whole / _MB:.0f} | {steps} "
                f"| {100 * (largest / peaks.whole - 1):.1f} % | {100 * (largest / own.whole_pytorch - 1):.1f} % |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
