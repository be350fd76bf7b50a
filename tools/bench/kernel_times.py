"""What takes a step's time? `python -m tools.bench.kernel_times BUNDLE`, for a bundle of images

Every call of every training program is timed inside the runner, which is built for that with `-DPROFL_CALL_TIMES=ON`,
and the kernels are listed by the time they take.

`--fit` measures networks of its own instead, none of which is in `prediction_grid.py`, and prints the `PRICES` of
`edge_runtime/export/plan/reference_core.py`, with what they leave unexplained. Run it alone on a machine.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from device_profiles.contract import MANIFEST_NAME
from device_profiles.errors import ExecutionError
from device_profiles.files import atomic_file, read_json
from device_profiles.manifest import Manifest, Program
from device_profiles.operators import table
from edge_runtime.export.ir.graph import Argument, Operation, Value
from tools.bench.kernel_fit import fit_prices, reading_price, report
from tools.cross.machines import ROOT
from tools.cross.runner import build

_FOLDER = click.Path(path_type=Path)
_TYPES: dict[int, Any] = {4: "int64", 6: "float32", 11: "bool", 15: "bfloat16"}
_EXAMPLES = 256
FITTED = (
    # model, width (None: as it is), batches
    ("cnn", 20, (24, 80)),
    ("cnn", 40, (48,)),
    ("resnet18", 20, (12, 40)),
    ("resnet18", 40, (12, 24)),
    ("resnet18", 56, (4, 20)),
    ("resnet34", 64, (6,)),
    ("vgg11_bn", 40, (12, 48)),
    ("vgg16_bn", 64, (4, 20)),
    ("vgg16_bn", 24, (40,)),
    ("tools.bench.kernel_networks:mobile", None, (8, 24)),
    ("tools.bench.kernel_networks:grouped", None, (16,)),
    ("tools.bench.kernel_networks:vision_transformer", None, (4, 16)),
)


@dataclass(frozen=True, slots=True)
class Timed:
    """An operation, and the seconds of each of its executions in one process."""

    operation: Operation
    stack: list[Any]
    seconds: tuple[float, ...]


@click.command(help=(__doc__ or "").splitlines()[0])
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--fit", is_flag=True, help="Print prices, measured with networks of its own.")
@click.option("--steps", type=click.IntRange(2), default=5, show_default=True, help="Steps of a process.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Processes for each program.")
@click.option("--work", type=_FOLDER, default=Path(tempfile.gettempdir()) / "profl-kernel-times", show_default=True)
def main(bundle: Path | None, fit: bool, steps: int, repeats: int, work: Path) -> None:
    """Print where the time goes, or what explains it."""
    if (bundle is None) != fit:
        raise click.UsageError("give a BUNDLE or --fit")
    runner = build(
        platform.machine(),
        folder=ROOT / "build" / "call-times" / platform.machine(),
        definitions=("PROFL_CALL_TIMES=ON",),
    )
    work.mkdir(parents=True, exist_ok=True)
    bundles = list(_exported(work)) if bundle is None else [bundle]
    timed: list[Timed] = []
    for repeat in range(repeats):
        for place, folder in enumerate(bundles):
            click.echo(f"repeat {repeat + 1} of {repeats}: {folder.name} ({place + 1} of {len(bundles)})", err=True)
            timed += measure(runner, folder, steps=steps, work=work)
    if fit:
        click.echo(report(fit_prices(_with_earlier(timed, work / "quickest.json"), read_byte=reading_price(work))))
    else:
        click.echo(shares(timed, len(bundles) * repeats * steps))


def _with_earlier(timed: Iterable[Timed], kept: Path) -> list[tuple[Operation, float]]:
    """The quickest execution of every operation, also of earlier calls with the same folder; kept for later ones."""
    quickest: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    for one in timed:
        key = json.dumps([one.operation.operator, one.stack])
        quickest[key] = min(*one.seconds, quickest.get(key, math.inf))
    with atomic_file(kept) as temporary:
        temporary.write_text(json.dumps(quickest))
    return [(operation_of(*json.loads(key)), seconds) for key, seconds in quickest.items()]


def shares(timed: Iterable[Timed], steps: int) -> str:
    """Kernels by their time of all programs together, in milliseconds a step."""
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for one in timed:
        seconds[one.operation.operator] += sum(one.seconds)
        calls[one.operation.operator] += len(one.seconds)
    whole = sum(seconds.values())
    lines = [f"{'kernel':<32}{'ms a step':>10}{'share':>8}{'calls':>8}"]
    for name, took in sorted(seconds.items(), key=lambda item: -item[1]):
        lines.append(f"{name:<32}{took / steps * 1e3:>10.3f}{took / whole:>8.1%}{calls[name] / steps:>8.1f}")
    return "\n".join(lines)


def measure(runner: Path, bundle: Path, *, steps: int, work: Path) -> Iterator[Timed]:
    """The calls of all training programs of a bundle of images; raises ExecutionError where one cannot be run."""
    manifest = read_json(bundle / MANIFEST_NAME, Manifest)
    shape = manifest.model.input_shape
    if len(shape) != 3:
        raise ExecutionError(f"{bundle}: takes no images")
    generator = np.random.default_rng(0)
    data = work / f"images-{'x'.join(map(str, shape))}.npz"
    labels = generator.integers(0, manifest.model.classes, _EXAMPLES)
    np.savez(data, images=generator.integers(0, 256, (_EXAMPLES, *shape), np.uint8), labels=labels)
    for program in manifest.programs:
        if program.work.trains and program.block is not None and program.variant != "cached-prefix":
            yield from _run(runner, bundle, program, data, steps)


def _run(runner: Path, bundle: Path, program: Program, data: Path, steps: int) -> Iterator[Timed]:
    with tempfile.TemporaryDirectory() as folder:
        times, update = Path(folder) / "times", Path(folder) / "update.safetensors"
        command = [str(runner), str(bundle), "--block", str(program.block), "--purpose", program.work.kind]
        command += ["--data", f"npz:{data}", "--steps", str(steps), "--threads", "1", "--initial-prefix", "--json"]
        command += ["--checkpoint-every", "0", "-o", str(update)]
        environment = {**os.environ, "PROFL_CALL_TIMES": str(times)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise ExecutionError(f"{bundle}: {program.name}: {ended.stderr.strip()}")
        for line in times.read_text().splitlines():
            call = json.loads(line)
            if call["operator"] and call["seconds"]:
                operation = operation_of(call["operator"], call["arguments"])
                yield Timed(operation, call["arguments"], tuple(call["seconds"]))


def operation_of(kernel: str, stack: list[Any]) -> Operation:
    """The operation of a call, whose values have shapes and types but no names."""
    name = kernel.removeprefix("profl::").removesuffix(".out")
    row = table().operators[name]
    values = [_argument(item) for item in stack]
    places = row.places(len(values))
    assert places is not None  # the loader has checked it
    outputs = sum(len(place) for parameter, place in zip(row.parameters, places, strict=True) if parameter.output)
    put_out = [value if isinstance(value, Value) else None for value in values[-outputs:]]
    return Operation(name, tuple(values[:-outputs]), tuple(put_out))


def _argument(item: Any) -> Argument:
    if isinstance(item, dict):
        return Value("", tuple(item["shape"]), "activation", _TYPES[item["type"]])
    return tuple(item) if isinstance(item, list) else item


def _exported(work: Path) -> Iterator[Path]:
    """The bundles of `FITTED`; those of an earlier call are taken again."""
    for model, width, batches in FITTED:
        for batch in batches:
            path = work / f"{model.rpartition(':')[2]}-w{width}-b{batch}"
            if not path.exists():
                command = [sys.executable, "-m", "edge_runtime.device", "export", "--model", model, "-o", str(path)]
                command += ["--batch", str(batch), "--no-verify"]
                command += ["--input", "3x32x32", "--blocks", "2"] if width is None else ["--width", str(width)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            yield path


if __name__ == "__main__":
    main()
