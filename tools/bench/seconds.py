"""How well are the seconds of a step predicted? `python -m tools.bench.seconds`

The programs of the calibration bundles of `prediction_grid.py` are measured, and every training program of its grid,
none of which is among them, is predicted from these and measured: `--repeats` short processes each, in turn and in
another order every time, so that what the machine does meanwhile falls on all of them alike; the quickest step of all
counts, since other work only slows a machine. Run it alone on a machine; with `--output` a second run adds its
processes to those of the first.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import msgspec

from device_profiles.contract import MANIFEST_NAME
from device_profiles.errors import ExecutionError, ProflError, UsageError
from device_profiles.files import read_json, write_json
from device_profiles.manifest import Manifest, Program
from device_profiles.seconds import fit_speed
from profiler.measure.program import ProcessMeter
from tools.bench.prediction import TIMEOUT_SECONDS, Bench
from tools.bench.prediction_grid import CALIBRATIONS, GRID, Entry

QUIET = 0.03
"""A difference of the two quickest processes of a program beyond this is taken for other work on the machine."""


class Measured(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What was measured: the quickest step of every process, in seconds, by `BUNDLE/PROGRAM`."""

    threads: int
    seconds: dict[str, list[float]] = {}

    def of(self, bundle: Path, program: Program) -> list[float]:
        """The processes of a program, empty at first."""
        return self.seconds.setdefault(f"{bundle.name}/{program.name}", [])


def taken_up(path: Path, threads: int) -> Measured:
    """What a file of an earlier run holds, or nothing where there is no such file.

    Raises UsageError where it was measured with another number of threads.
    """
    if not path.exists():
        return Measured(threads=threads)
    measured = read_json(path, Measured)
    if measured.threads != threads:
        raise UsageError(f"{path} was measured with --threads {measured.threads}; give another --output")
    return measured


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--work", type=click.Path(path_type=Path), default=Path(tempfile.gettempdir()) / "profl-seconds")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of every step.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Processes for each program.")
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Timed steps of a process.")
@click.option("--most", type=click.IntRange(1), default=80, show_default=True, help="Programs that are measured.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="JSON of all that was measured, written after every repeat; what is in it already counts too.",
)
def main(work: Path, threads: int, repeats: int, steps: int, most: int, output: Path | None) -> None:
    """Print a line a program, and the median and the largest error."""
    try:
        _judge(work, threads, repeats, steps, most, output)
    except ProflError as error:
        click.echo(f"seconds: error: {error}", err=True)
        sys.exit(error.exit_status)


def _judge(work: Path, threads: int, repeats: int, steps: int, most: int, output: Path | None) -> None:
    measured = Measured(threads=threads) if output is None else taken_up(output, threads)
    bench = Bench(work, threads)
    known = _trainings(bench, CALIBRATIONS.values())
    programs = _trainings(bench, GRID)
    # Of every bundle as many as of the others, in the order in which they were exported.
    programs = programs[:: -(-len(programs) // most)]
    order = random.Random(sum(map(len, measured.seconds.values())))
    if output is not None:
        write_json(output, measured)  # a place where nothing can be written is told before minutes of measuring
    for repeat in range(repeats):
        click.echo(f"repeat {repeat + 1} of {repeats}", err=True)
        for bundle, program in order.sample(asked := [*known, *programs], len(asked)):
            measured.of(bundle, program).append(_measure(bundle, program, threads, steps, work))
        if output is not None:
            write_json(output, measured)
    speed = fit_speed([(program.loads, min(measured.of(bundle, program))) for bundle, program in known])
    assert speed is not None  # the calibration bundles are of this release
    errors = []
    for bundle, program in programs:
        predicted, quickest = speed.seconds(program.loads), min(measured.of(bundle, program))
        assert predicted is not None
        errors.append(abs(predicted / quickest - 1))
        click.echo(f"{bundle.name:<34}{program.name:<28}{predicted:>9.4f}{quickest:>9.4f}{errors[-1]:>8.1%}")
    summary = {
        "programs": len(errors),
        "error_median": median(errors),
        "error_largest": max(errors),
        "threads": threads,
        "processes": min(len(measured.of(*one)) for one in (*known, *programs)),
        "noise_median": (noise := noise_of(measured.of(*one) for one in (*known, *programs))),
    }
    click.echo(json.dumps(summary))
    if noise is not None and noise > QUIET:
        click.echo(
            f"this machine was not quiet: the two quickest processes of a program differ by {noise:.0%}, which "
            "errors contain; run it alone, with more --repeats",
            err=True,
        )


def noise_of(measured: Iterable[Sequence[float]]) -> float | None:
    """By how much the second best of what was measured for a program is above the best, the median over programs; None
    where nothing was measured twice."""
    pairs = [sorted(seconds)[:2] for seconds in measured if len(seconds) > 1]
    return median(second / best - 1 for best, second in pairs) if pairs else None


def _trainings(bench: Bench, entries: Iterable[Entry]) -> list[tuple[Path, Program]]:
    """Every training program of these bundles, with its bundle."""
    return [
        (bundle, program)
        for entry in entries
        for bundle in bench.export(entry)
        for program in read_json(bundle / MANIFEST_NAME, Manifest).programs
        if program.work.trains and program.loads
    ]


def _measure(bundle: Path, program: Program, threads: int, steps: int, work: Path) -> float:
    meter = ProcessMeter(
        bundle=bundle,
        limit_bytes=None,
        steps=steps,
        warmup_steps=1,
        threads=threads,
        timeout_seconds=TIMEOUT_SECONDS,
        scratch=work,
    )
    ended = meter.train(program)
    if ended.outcome.returncode:
        raise ExecutionError(f"{bundle.name}: {program.name}: {ended.last_line}")
    report: dict[str, Any] = json.loads(ended.output)
    return float(report["step_seconds_minimum"])


if __name__ == "__main__":
    main()
