"""The largest batch and its cheapest variant, found with few runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.errors import UsageError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest, Program
from profiler.commands.fit import _line
from profiler.fit.bisection import Candidate, Trial, find_batch, find_fit, largest_that_fits
from profiler.fit.fitting import fit_bundles
from profiler.measure.program import Observation
from profiler.profiling.profile import ProfileRequest

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@given(st.integers(0, 300), st.integers(0, 300))
def test_bisection_finds_the_last_that_fits_with_log2_questions(count: int, fitting: int) -> None:
    asked: list[int] = []

    def fits(value: int) -> bool:
        asked.append(value)
        return value < fitting

    found = largest_that_fits(range(count), fits)
    assert found == (min(count, fitting) - 1 if min(count, fitting) else None)
    assert len(asked) == len(set(asked)) <= math.ceil(math.log2(count + 1))


def _candidate(batch: int, need: int, **changes: Any) -> Candidate:
    program = read_json(GOLDEN / "manifest.json", Manifest).programs[0]
    program = msgspec.structs.replace(program, batch=batch, micro_batch=batch, **changes)
    return Candidate(origin=f"b{batch}-{need}", program=program, need_bytes=need)


def _trial(candidate: Candidate, limit: int) -> Trial:
    fits = candidate.need_bytes <= limit
    return Trial(
        bundle=str(candidate.origin),
        program=candidate.program.name,
        block=candidate.program.block,
        batch=candidate.program.batch,
        micro_batch=candidate.program.micro_batch,
        variant=candidate.program.variant,
        fits=fits,
        died_at_bytes=None if fits else limit,
    )


@given(st.sets(st.tuples(st.sampled_from([8, 16, 32, 64]), st.integers(1, 1000)), min_size=1), st.integers(0, 1100))
def test_the_best_is_the_largest_batch_in_its_cheapest_variant(needs: set[tuple[int, int]], limit: int) -> None:
    found = find_fit(
        [_candidate(batch, need) for batch, need in needs], limit_bytes=limit, run=lambda c: _trial(c, limit)
    )
    fitting = [(batch, need) for batch, need in needs if need <= limit]
    if not fitting:
        assert found.best is None and found.trials
        assert "nothing fits" in _line(found)
    else:
        assert found.best is not None
        assert found.best.bundle == "b{}-{}".format(*max(fitting))
    assert len({trial.bundle for trial in found.trials}) == len(found.trials)


def test_any_batch_can_be_tried_where_programs_are_made_as_they_run() -> None:
    found = find_batch(100, block=1, limit_bytes=50, run=lambda batch: _trial(_candidate(batch, batch), 37))
    assert found.best is not None and found.best.batch == 37
    assert len(found.trials) <= 7
    assert "batch 37" in _line(found) and "did not fit" in _line(found)


class _LimitedMeter:
    """Fits what is planned to need no more than the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def measure(self, program: Program) -> Observation:
        if program.memory.total_bytes(1) > self._limit:
            return Observation(report=None, limit_kind="cgroup-v1", reason="does not fit", died_at_bytes=self._limit)
        return Observation(report={"measured_peak_bytes": 5}, limit_kind="cgroup-v1", reason=None)

    def base_bytes(self) -> int:
        return 0

    def plan(self, program: Program) -> None:
        return None


def _bundle(folder: Path) -> Path:
    manifest = read_json(GOLDEN / "manifest.json", Manifest)
    for entry in manifest.files:
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(entry.size_bytes))
    (folder / "manifest.json").write_bytes((GOLDEN / "manifest.json").read_bytes())
    return folder


def test_every_block_of_the_bundles_is_answered(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "bundle")
    needs = {p.block: p.memory.total_bytes(1) for p in read_json(bundle / "manifest.json", Manifest).programs}
    limit = max(needs.values())
    request = ProfileRequest(bundle=None, output=tmp_path, name="box", limit_bytes=limit)
    fits = fit_bundles([bundle], request, meter_for=lambda _request, _subject: _LimitedMeter(limit))
    assert [found.block for found in fits] == sorted(needs)
    none = fit_bundles([bundle], request, meter_for=lambda _request, _subject: _LimitedMeter(0))
    assert all(found.best is None and found.trials[0].died_at_bytes == 0 for found in none)


def test_without_a_limit_there_is_nothing_to_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--limit"):
        fit_bundles([], ProfileRequest(bundle=None, output=tmp_path, name="box"))
