"""`python -m tools.experiments.memory`: measured peaks of every growing step beside whole-model training, by model.

Every number is VmHWM of a process of its own: `profl-edge bench` for the light runtime, `server.pytorch_step` for
PyTorch. The paper's claim (peak memory -57.4 % at most) is about steps against whole-model training at batch 64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from device_profiles.files import atomic_file, write_json
from server.fleet import ModelSettings
from tools.experiments.results import environment

_MB = float(1 << 20)
MODELS = ("resnet18", "resnet34", "vgg11_bn", "vgg16_bn")


class ModelMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Peaks in bytes: the whole network with both runtimes, and every growing step of the light one."""

    model: str
    batch: int
    whole_pytorch: int
    whole_runtime: int
    steps: tuple[int, ...]


@click.command()
@click.option("--batch", type=click.IntRange(min=2), default=64, show_default=True, help="Examples in a step.")
@click.option("--models", default=",".join(MODELS), show_default=True, help="Which ones.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("runs/experiments/memory"))
def main(batch: int, models: str, output: Path) -> None:
    """Measure, then write results.json and results.md; a model that is measured already is not measured again."""
    measured = []
    for model in models.split(","):
        path = output / f"{model}-batch{batch}.json"
        if not path.is_file():
            click.echo(f"{model}, batch {batch}", err=True)
            write_json(path, _measure(model, batch))
        measured.append(msgspec.json.decode(path.read_bytes(), type=ModelMemory))
    with atomic_file(output / f"batch{batch}.md") as temporary:
        temporary.write_text(_table(measured, batch), encoding="utf-8")
    click.echo(_table(measured, batch))


def _measure(model: str, batch: int) -> ModelMemory:
    settings = ModelSettings(name=model, batch=batch)
    pytorch = _json([sys.executable, "-m", "server.pytorch_step", msgspec.json.encode(settings).decode(), "1"])
    with tempfile.TemporaryDirectory() as folder:
        blocks, whole = Path(folder) / "blocks", Path(folder) / "whole"
        _export(model, batch, blocks)
        _export(model, batch, whole, "--blocks", "1")
        count = len(json.loads((blocks / "manifest.json").read_text())["partition"]["blocks"])
        return ModelMemory(
            model=model,
            batch=batch,
            whole_pytorch=pytorch["measured_peak_bytes"],
            whole_runtime=_peak(whole, 1),
            steps=tuple(_peak(blocks, block) for block in range(1, count + 1)),
        )


def _export(model: str, batch: int, folder: Path, *more: str) -> None:
    command = [sys.executable, "-m", "edge_runtime.device", "export", "--model", model, "--batch", str(batch)]
    subprocess.run([*command, *more, "-o", str(folder)], check=True, stdout=subprocess.DEVNULL)


def _peak(bundle: Path, block: int) -> int:
    command = [sys.executable, "-m", "edge_runtime.device", "bench", str(bundle), "--block", str(block)]
    return _json([*command, "--steps", "1", "--warmup", "1", "--threads", "1", "--json"])["measured_peak_bytes"]


def _json(command: list[str]) -> dict[str, int]:
    answer: dict[str, int] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def _table(measured: list[ModelMemory], batch: int) -> str:
    facts = environment()
    lines = [
        f"Command: `python -m tools.experiments.memory --batch {batch}`. Machine: {facts['processor']}, one thread. "
        "VmHWM of the whole process, Python included, in MB (1 MB = 1,048,576 bytes); width 64, 3x32x32, SGD with "
        "momentum, output modules included.",
        "",
        "| model | whole, PyTorch | whole, light runtime | steps 1, 2, ... (light runtime) | largest step against "
        "whole, light runtime | against whole, PyTorch |",
        "|---|---|---|---|---|---|",
    ]
    for own in measured:
        steps = " / ".join(f"{step / _MB:.0f}" for step in own.steps)
        largest = max(own.steps)
        lines.append(
            f"| {own.model} | {own.whole_pytorch / _MB:.0f} | {own.whole_runtime / _MB:.0f} | {steps} "
            f"| {100 * (largest / own.whole_runtime - 1):.1f} % | {100 * (largest / own.whole_pytorch - 1):.1f} % |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
