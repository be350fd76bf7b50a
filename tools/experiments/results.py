"""What a study measures of every run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from edge_runtime.device.machine.readings import cpu_model
from server.report.runs import read_run
from server.running.settings import settings_of
from tools.experiments.study import Case


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    `curve`: round, device-seconds so far, accuracy on the part of the test set that is evaluated in between.
    `promise_bytes`: the largest any client was given. `target`: round and device-seconds at which `curve` reaches the
    study's target accuracy. `participation`: share of the clients that had work in some stage. `settings_sha256`: of
    the run's fleet file; `machine`: what its device-seconds are of.
    """

    split: str
    method: str
    seed: int
    accuracy: float
    participation: float
    rounds: int
    device_seconds: float
    bytes_a_round: float
    promise_bytes: int
    curve: tuple[tuple[int, float, float], ...]
    target: tuple[int, float] | None
    stages: tuple[tuple[str, int, str], ...]
    settings_sha256: str = ""
    machine: str = ""


class StudyResults(msgspec.Struct, frozen=True, kw_only=True):
    """`results.json` of a study."""

    command: str
    runs: tuple[Outcome, ...]


def collect(
    planned: Sequence[Case], folder: Path, target_accuracy: float, published: Sequence[Outcome] = ()
) -> list[Outcome]:
    """Every finished run; of those that are not below `folder`, what is `published`."""
    known = {outcome.settings_sha256: outcome for outcome in published}
    outcomes = []
    for case in planned:
        digest = settings_sha256(case)
        if is_finished(case, folder):
            outcomes.append(_outcome(case, folder / case.folder, target_accuracy))
        elif digest in known:
            # A method may have been given another name since.
            outcomes.append(msgspec.structs.replace(known[digest], split=case.split, method=case.method))
    return outcomes


def is_finished(case: Case, folder: Path) -> bool:
    """Whether the run is there to its end, below its study's `folder`."""
    return (folder / case.folder / "summary.json").is_file()


def settings_sha256(case: Case) -> str:
    """Digest of everything that a run follows from."""
    return hashlib.sha256(msgspec.json.encode(settings_of(case.fleet))).hexdigest()


def machine() -> str:
    """`AMD EPYC (family 25, model 17), 2 cores, torch 2.13.0+cpu`."""
    return f"{cpu_model() or 'unknown processor'}, {os.cpu_count()} cores, torch {metadata.version('torch')}"


def _outcome(case: Case, folder: Path, target_accuracy: float) -> Outcome:
    run = read_run(folder)
    assert run.summary is not None and run.summary.accuracy is not None  # finished ones of classifiers
    seconds = run.device_seconds()
    rounds, accuracies = run.reached()
    curve = tuple((number, seconds[number], value) for number, value in zip(rounds, accuracies, strict=True))
    reached = next(((number, spent) for number, spent, value in curve if value >= target_accuracy), None)
    return Outcome(
        split=case.split,
        method=case.method,
        seed=case.seed,
        accuracy=run.summary.accuracy,
        participation=run.summary.participation,
        rounds=len(run.rounds),
        device_seconds=seconds[run.rounds[-1].round],
        bytes_a_round=sum(r.bytes_down + r.bytes_up for r in run.rounds) / len(run.rounds),
        promise_bytes=max(client.predicted_peak_bytes for client in run.summary.clients),
        curve=curve,
        target=reached,
        stages=tuple(
            (f"{step.stage} {step.block}" if step.block else step.stage, step.rounds, step.froze_because)
            for step in run.summary.steps
        ),
        settings_sha256=settings_sha256(case),
        machine=machine(),
    )
