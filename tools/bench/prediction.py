"""How well is the peak of a training predicted, and is the promise kept? `python tools/bench/prediction.py`

A device profile is calibrated with the programs of one small bundle for each family of models. Then every program of a
grid of models, widths, batches and variants that it never saw is predicted and measured, and training runs drawn at
random from the grid are held to their promise by the kernel, and to 90 % of their measured peak.

A control group does not charge pages of files that another process holds, such as Python's own libraries. So that
nothing is for free, the limits here are those of the process minus its file pages, which is stricter than what a device
would enforce. Results are kept in --work after every run; the same command continues. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

if __package__ in (None, ""):  # started by its path: the repository is not on the path of modules
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from device_profiles.contract import MANIFEST_NAME
from device_profiles.errors import UsageError
from device_profiles.files import read_json, write_json
from device_profiles.manifest import Manifest, Program
from device_profiles.predict import MARGIN_BYTES, Prediction, predict
from device_profiles.profile import DeviceProfile
from device_profiles.work import Grow
from profiler.measure.processes import Ended, run_measured
from profiler.measure.program import ProcessMeter
from profiler.profiling.profile import ProfileRequest, profile_bundle
from tools.bench.prediction_grid import CALIBRATIONS, GRID, Draw, Entry, Point, Study

MB = float(1 << 20)
TIMEOUT_SECONDS = 150.0
"""At a limit below its need a process may also be kept alive by reclaim alone, without getting anywhere."""
TIGHT = 0.9


class Bench:
    """The study in its folder."""

    def __init__(self, work: Path, threads: int) -> None:
        self._work = work
        self._threads = threads
        self._path = work / "study.json"
        self.study = read_json(self._path, Study) if self._path.exists() else Study(threads=threads)

    def export(self, entry: Entry) -> list[Path]:
        """The bundles of an entry; for recomputation one a block, each with a share of the block's own arena."""
        if entry.recompute is None:
            return [self._export(entry, entry.name, [])]
        plain = self._export(_without_recompute(entry), _without_recompute(entry).name, [])
        bundles = []
        for program in read_json(plain / MANIFEST_NAME, Manifest).programs:
            if isinstance(program.work, Grow) and program.variant == "default":
                limit = int(program.memory.arena_bytes * entry.recompute)
                try:
                    options = ["--block", str(program.block), "--recompute", f"{limit}B"]
                    bundles.append(self._export(entry, f"{entry.name}-{program.block}", options))
                except UsageError as error:
                    print(f"{entry.name}: block {program.block} is left out: {error}", file=sys.stderr)
        return bundles

    def _export(self, entry: Entry, name: str, options: list[str]) -> Path:
        path = self._work / "bundles" / name
        if path.exists():
            return path
        command = [sys.executable, "-m", "edge_runtime.device", "export", "--model", entry.model]
        command += ["--width", str(entry.width), "--batch", str(entry.batch), "-o", str(path)]
        command += ["--momentum-dtype", entry.momentum_dtype, *options]
        if entry.micro_batch is not None:
            command += ["--micro-batch", str(entry.micro_batch)]
        ended = run_measured(command)
        if ended.outcome.returncode:
            raise UsageError(ended.last_line)
        print(f"exported {name}", file=sys.stderr)
        return path

    def calibrate(self) -> dict[str, DeviceProfile]:
        """The profiles that every prediction rests on, by family of models."""
        return {family: self._calibrate(family, entry) for family, entry in CALIBRATIONS.items()}

    def _calibrate(self, family: str, entry: Entry) -> DeviceProfile:
        (bundle,) = self.export(entry)
        request = ProfileRequest(
            bundle=bundle,
            output=self._work / f"calibration-{family}.json",
            name=f"calibration-{family}",
            steps=1,
            repetitions=2,
            threads=self._threads,
        )
        return profile_bundle(request, progress=lambda line: print(f"calibration: {line}", file=sys.stderr))

    def measure_grid(self, profiles: dict[str, DeviceProfile]) -> None:
        """Measure every training program that is not done, and predict all of them."""
        done = {(point.bundle, point.program): point for point in self.study.points}
        self.study.points = []
        for entry in GRID:
            profile = next(p for family, p in profiles.items() if entry.model.startswith(family))
            for bundle in self.export(entry):
                for program in _trainings(bundle):
                    known = done.get((bundle.name, program.name))
                    self.study.points.append(self._point(bundle, program, predict(program, profile), known))
                    if known is None:
                        self._save()
                        print(f"grid: {len(self.study.points)} programs", file=sys.stderr)
        self._save()

    def _point(self, bundle: Path, program: Program, prediction: Prediction, known: Point | None) -> Point:
        if known is not None:
            return msgspec.structs.replace(known, prediction=prediction)
        ended = self._train(bundle, program, None)
        report = _report(ended)
        assert ended.watched is not None and ended.watched.file_bytes is not None  # it lived, so it was seen
        return Point(
            bundle=bundle.name,
            program=program.name,
            variant=program.variant,
            batch=program.batch,
            prediction=prediction,
            measured_bytes=int(report["measured_peak_bytes"]),
            file_bytes=ended.watched.file_bytes,
        )

    def draw(self, count: int, seed: int) -> None:
        """Trainings at random from the grid: as many under their promise, as many at 90 % of their peak."""
        order = random.Random(seed)
        points = [order.choice(self.study.points) for _ in range(count)]
        promised = [point.prediction.high_bytes - point.file_bytes for point in points]
        tight = [int(point.measured_bytes * TIGHT) - point.file_bytes for point in points]
        for name, draws, limits in (("promise", self.study.promised, promised), ("tight", self.study.tight, tight)):
            for number, (point, limit) in enumerate(zip(points, limits, strict=True)):
                if number < len(draws) and _same(draws[number], point, limit):
                    continue
                draws[number:] = [self._under(point, limit)]
                self._save()
                lived = sum(draw.lived for draw in draws)
                print(f"{name}: {len(draws)} trainings, {lived} lived", file=sys.stderr)

    def _under(self, point: Point, limit_bytes: int) -> Draw:
        bundle = self._work / "bundles" / point.bundle
        program = read_json(bundle / MANIFEST_NAME, Manifest).program(point.program)
        ended = self._train(bundle, program, limit_bytes)
        lived = ended.outcome.returncode == 0
        return Draw(
            bundle=point.bundle,
            program=point.program,
            limit_bytes=limit_bytes,
            lived=lived,
            limit_kind=ended.outcome.limit_kind,
            peak_bytes=int(_report(ended)["measured_peak_bytes"]) if lived else None,
            why=None if lived else ended.does_not_fit() or ended.last_line,
        )

    def _train(self, bundle: Path, program: Program, limit_bytes: int | None) -> Ended:
        meter = ProcessMeter(
            bundle=bundle,
            limit_bytes=limit_bytes,
            steps=1,
            warmup_steps=0,
            threads=self._threads,
            timeout_seconds=TIMEOUT_SECONDS,
            scratch=self._work,
        )
        return meter.train(program)

    def _save(self) -> None:
        write_json(self._path, self.study)


def _same(draw: Draw, point: Point, limit_bytes: int) -> bool:
    return (draw.bundle, draw.program, draw.limit_bytes) == (point.bundle, point.program, limit_bytes)


def _trainings(bundle: Path) -> list[Program]:
    programs = read_json(bundle / MANIFEST_NAME, Manifest).programs
    return [program for program in programs if isinstance(program.work, Grow) and program.variant != "cached-prefix"]


def _without_recompute(entry: Entry) -> Entry:
    return replace(entry, recompute=None)


def _report(ended: Ended) -> dict[str, Any]:
    if ended.outcome.returncode:
        raise SystemExit(f"prediction.py: a training failed: {ended.last_line}")
    report: dict[str, Any] = json.loads(ended.output)
    return report


def summary_of(study: Study) -> dict[str, Any]:
    """The judged numbers."""
    errors = sorted(point.error for point in study.points)
    return {
        "programs": len(study.points),
        "error_median": median(errors),
        "error_largest": errors[-1],
        "above_largest_bytes": max(point.above_bytes for point in study.points),
        "margin_bytes": MARGIN_BYTES,
        "promised_trainings": len(study.promised),
        "promised_kills": sum(not draw.lived for draw in study.promised),
        "tight_trainings": len(study.tight),
        "tight_kills": sum(not draw.lived for draw in study.tight),
        "limit_kinds": sorted({draw.limit_kind for draw in [*study.promised, *study.tight]}),
        "threads": study.threads,
    }


def table_of(study: Study) -> str:
    """The grid, one line a program."""
    lines = [f"{'bundle':<34}{'program':<14}{'predicted':>10}{'measured':>10}{'error':>8}{'above MB':>10}"]
    for point in study.points:
        lines.append(
            f"{point.bundle:<34}{point.program:<14}{point.prediction.peak_bytes / MB:>10.1f}"
            f"{point.measured_bytes / MB:>10.1f}{point.error:>8.1%}{point.above_bytes / MB:>10.2f}"
        )
    return "\n".join(lines)


def plot_of(study: Study, *, columns: int = 72, rows: int = 24) -> str:
    """Predicted (across) against measured (up); `.` is where they are equal, digits count the programs on a spot."""
    values = [v for p in study.points for v in (p.prediction.peak_bytes, p.measured_bytes)]
    low, high = min(values) * 0.95, max(values) * 1.02
    grid = [[" "] * columns for _ in range(rows)]
    for column in range(columns):
        grid[int(column / columns * rows)][column] = "."
    for point in study.points:
        x = int((point.prediction.peak_bytes - low) / (high - low) * columns)
        y = int((point.measured_bytes - low) / (high - low) * rows)
        here = grid[y][x]
        grid[y][x] = str(min(int(here) + 1, 9)) if here.isdigit() else "1"
    lines = []
    for row in range(rows - 1, -1, -1):
        label = f"{(low + (row + 0.5) / rows * (high - low)) / MB:>6.0f} |"
        lines.append(label + "".join(grid[row]).rstrip())
    lines.append(" " * 7 + "+" + "-" * columns)
    lines.append(f"{'':>8}{low / MB:<10.0f}{'predicted, MB':^{columns - 20}}{high / MB:>10.0f}")
    return "\n".join(["measured, MB", *lines])


def main() -> int:
    """Run what is left of the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "profl-prediction")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print only the summary, as one JSON object")
    given = parser.parse_args()
    bench = Bench(given.work, given.threads)
    bench.measure_grid(bench.calibrate())
    bench.draw(given.draws, given.seed)
    summary = summary_of(bench.study)
    if given.json:
        print(json.dumps(summary))
    else:
        print("\n\n".join([table_of(bench.study), plot_of(bench.study), json.dumps(summary, indent=2)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
