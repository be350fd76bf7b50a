"""`profl-profile fit`: from bundles or a model to candidates, from candidates to runs under the limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from device_profiles.errors import UsageError
from device_profiles.manifest import Program
from device_profiles.promise import VARIATION_BYTES
from profiler.fit.bisection import Candidate, Fit, Trial, find_batch, find_fit
from profiler.measure.program import Meter, Observation
from profiler.profiling.profile import ProfileRequest, meter_of, subject_of
from profiler.profiling.subject import Subject


def fit_bundles(
    bundles: Sequence[Path],
    request: ProfileRequest,
    *,
    progress: Callable[[str], None] = lambda line: None,
    meter_for: Callable[[ProfileRequest, Subject], Meter] = meter_of,
) -> list[Fit]:
    """For each block, the best of all training programs of these bundles of one model; raises UsageError for two."""
    limit = _limit(request)
    subjects = {path: subject_of(replace(request, bundle=path)) for path in bundles}
    models = {(subject.model, subject.partition) for subject in subjects.values()}
    if len(models) > 1:
        raise UsageError(f"{', '.join(map(str, bundles))}: must contain the same model with the same blocks")
    meters = {path: meter_for(replace(request, bundle=path), subject) for path, subject in subjects.items()}
    candidates: dict[int, list[Candidate]] = {}
    for path, subject in subjects.items():
        for program in subject.chosen(("grow",), request.block):
            need = program.memory.total_bytes(request.threads)
            candidates.setdefault(program.block, []).append(Candidate(origin=path, program=program, need_bytes=need))

    def run(candidate: Candidate) -> Trial:
        progress(f"{candidate.origin}: {candidate.program.name}, batch {candidate.program.batch}")
        path = Path(candidate.origin)
        return trial_of(str(path), candidate.program, meters[path].measure(candidate.program), limit)

    return [find_fit(candidates[block], limit_bytes=limit, run=run) for block in sorted(candidates)]


def fit_model(
    subject: Subject,
    request: ProfileRequest,
    *,
    largest_batch: int,
    progress: Callable[[str], None] = lambda line: None,
    meter_for: Callable[[ProfileRequest, Subject], Meter] = meter_of,
) -> list[Fit]:
    """For each block, the largest batch with PyTorch, up to `largest_batch`."""
    limit = _limit(request)
    meter = meter_for(request, subject)
    fits = []
    for program in subject.chosen(("grow",), request.block):

        def run(batch: int, block: int = program.block) -> Trial:
            progress(f"block {block}: batch {batch}")
            (candidate,) = subject.with_batch(batch).chosen(("grow",), block)
            return trial_of(subject.origin, candidate, meter.measure(candidate), limit)

        fits.append(find_batch(largest_batch, block=program.block, limit_bytes=limit, run=run))
    return fits


def trial_of(origin: str, program: Program, observation: Observation, limit_bytes: int) -> Trial:
    """One observation as a trial. What lived under the limit fits where `profl-edge train` accepts the limit as well:
    no lower than the promise."""
    report = observation.report or {}
    promised = report.get("predicted_peak_bytes", 0)
    accepted = promised - VARIATION_BYTES <= limit_bytes
    return Trial(
        bundle=origin,
        program=program.name,
        block=program.block,
        batch=program.batch,
        micro_batch=program.micro_batch,
        variant=program.variant,
        fits=observation.report is not None and accepted,
        peak_bytes=report.get("measured_peak_bytes"),
        step_seconds=report.get("step_seconds_median"),
        died_at_bytes=observation.died_at_bytes,
        reason=observation.reason if accepted else f"does not fit: {promised} bytes are promised",
    )


def _limit(request: ProfileRequest) -> int:
    if request.limit_bytes is None:
        raise UsageError("fit: requires --limit, such as --limit 128MB")
    return request.limit_bytes
