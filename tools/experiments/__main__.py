"""`python -m tools.experiments STUDY`: make every run of a study that is not made yet, then its tables and figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import click
import msgspec

from device_profiles.errors import ProflError, UsageError
from device_profiles.files import atomic_file, read_json, write_json
from server.data.split import choose_source
from tools.experiments.publish import PICTURES
from tools.experiments.results import Outcome, StudyResults, collect, is_finished, settings_sha256
from tools.experiments.study import Case, Study, cases, read_study
from tools.experiments.tables import write_report

PUBLISHED = Path("docs/results")
"""What `tools.experiments.publish` put there."""


@click.command(epilog="Example: python -m tools.experiments reduced --parallel 2")
@click.argument("study")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; runs/experiments/STUDY by default.")
@click.option("--parallel", type=click.IntRange(min=1), default=2, show_default=True, help="Runs at a time.")
@click.option("--report-only", is_flag=True, help="Tables and figures of what is finished, without new runs.")
@click.option(
    "--published",
    is_flag=True,
    help="Take what docs/results has of the same settings, and make the other runs alone.",
)
@click.option("--only", "methods", multiple=True, help="Make runs of this method of the study alone; repeatable.")
@click.option("--seed", "seeds", type=int, multiple=True, help="Make runs of this seed alone; repeatable.")
def main(
    study: str,
    output: Path | None,
    parallel: int,
    report_only: bool,
    published: bool,
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
) -> None:
    """Interrupted at any time, it continues after the last round of every run."""
    try:
        read = read_study(study)
        folder = Path("runs/experiments") / Path(study).stem if output is None else output
        planned = list(cases(read, study))
        known = _published(study) if published else ()
        if not report_only:
            asked = _asked(planned, methods, seeds)
            _make(asked, folder, parallel, _there(planned, folder, known))
        _report(read, planned, folder, study, known)
    except ProflError as error:
        click.echo(f"experiments: error: {error}", err=True)
        sys.exit(error.exit_status)


def _asked(planned: Sequence[Case], methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[Case]:
    """The runs of these methods and seeds, all where none is named; raises UsageError for one that there is not."""
    for option, given, known in (
        ("--only", methods, [case.method for case in planned]),
        ("--seed", seeds, [case.seed for case in planned]),
    ):
        for value in given:
            if value not in known:
                there = ", ".join(str(name) for name in dict.fromkeys(known))
                raise UsageError(f"{option} {value}: is not of this study, which has {there}")
    return [case for case in planned if (not methods or case.method in methods) and (not seeds or case.seed in seeds)]


def _published(study: str) -> Sequence[Outcome]:
    path = PUBLISHED / f"{Path(study).stem}.json"
    if not path.is_file():
        raise UsageError(f"--published: {path} is not there; leave it out, and every run is made")
    return read_json(path, StudyResults).runs


def _there(planned: Sequence[Case], folder: Path, published: Sequence[Outcome]) -> set[str]:
    """Runs that need not be made: finished ones, and published ones."""
    known = {outcome.settings_sha256 for outcome in published}
    return {case.folder for case in planned if is_finished(case, folder) or settings_sha256(case) in known}


def _make(planned: Sequence[Case], folder: Path, parallel: int, there: set[str]) -> None:
    waiting = [case for case in planned if case.folder not in there]
    click.echo(f"{len(planned) - len(waiting)} of {len(planned)} runs are there", err=True)
    _check_data(waiting)
    failed = 0
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        futures = {pool.submit(_run, case, folder / case.folder): case for case in waiting}
        for done, future in enumerate(as_completed(futures), start=1):
            case = futures[future]
            status, line = future.result()
            failed += status != 0
            where = f"{case.split}, {case.method}, seed {case.seed}"
            click.echo(f"{done}/{len(waiting)} {where}: {line}", err=True)
    if failed:
        click.echo(f"{failed} runs failed; the tables leave them out", err=True)


def _check_data(waiting: Sequence[Case]) -> None:
    """Raise DataError where the data of a run are not on this machine, before any run is begun."""
    checked = set()
    for case in waiting:
        if case.fleet.data.sources not in checked:
            choose_source(case.fleet.data)
            checked.add(case.fleet.data.sources)


def _run(case: Case, folder: Path) -> tuple[int, str]:
    """One run as a process of its own; its exit status, and a line about it."""
    folder.mkdir(parents=True, exist_ok=True)
    job = folder.with_name(f"{folder.name}.fleet.json")
    with atomic_file(job) as temporary:
        temporary.write_bytes(msgspec.json.encode(case.fleet))
    started = time.monotonic()
    command = _command(job, folder)
    threads = str(case.fleet.training.threads)
    path = folder.with_name(f"{folder.name}.log")
    with path.open("ab") as log:
        finished = subprocess.run(
            command, stdout=log, stderr=log, check=False, env={**os.environ, "OMP_NUM_THREADS": threads}
        )
    seconds = time.monotonic() - started
    if finished.returncode != 0:
        return finished.returncode, f"{_last_line(path)} (exit status {finished.returncode}, {path})"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return 0, f"accuracy {summary['accuracy']:.4f} ({seconds:.0f} s)"


def _command(job: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tools.experiments.one", str(job), str(folder)]


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")


def _report(read: Study, planned: Sequence[Case], folder: Path, study: str, published: Sequence[Outcome]) -> None:
    command = f"python -m tools.experiments {study}"
    outcomes = collect(planned, folder, read.target_accuracy, published)
    write_json(folder / "results.json", StudyResults(command=command, runs=tuple(outcomes)))
    write_report(read, outcomes, folder, command, PICTURES / Path(study).stem if published else None)
    click.echo(f"{len(outcomes)} of {len(planned)} runs: {folder / 'results.md'}", err=True)


if __name__ == "__main__":
    main()
