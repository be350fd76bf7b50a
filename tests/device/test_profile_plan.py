"""The plan over a step, read from the program itself, agrees with the memory plan of the manifest to the byte."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.errors import FormatError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from profiler.measure.plan_timeline import plan_timeline
from profiler.measure.program_file import read_program
from tests.support.mutations import mutated_bytes


@pytest.mark.parametrize("name", ["cnn_bundle", "summing_bundle"])
def test_the_most_that_is_alive_is_what_the_manifest_states(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Path = request.getfixturevalue(name)
    programs = read_json(bundle / "manifest.json", Manifest).programs
    assert {program.work.kind for program in programs} >= {"grow", "eval"}
    for program in programs:
        file = read_program(bundle / "programs" / f"{program.name}.pte")
        plan = plan_timeline(file, program)
        assert plan is not None and len(plan.work) == program.instructions == len(file.calls)
        assert file.arena_bytes == program.memory.arena_bytes
        alive = [
            sum(parts)
            for parts in zip(
                plan.parameters_bytes,
                plan.optimizer_state_bytes,
                plan.activations_bytes,
                plan.gradients_bytes,
                plan.temporaries_bytes,
                strict=True,
            )
        ]
        assert max(alive) == program.memory.live_bytes, program.name
        peak = alive.index(max(alive))
        assert plan.parameters_bytes[peak] == program.memory.parameters_bytes
        assert plan.optimizer_state_bytes[peak] == program.memory.optimizer_state_bytes
        if name == "summing_bundle" and program.work.kind == "grow":
            sums = sum(4 * math.prod(t.shape) for t in program.tensors if t.role == "gradient_sum")
            assert 0 < sums <= min(plan.gradients_bytes)
        assert list(plan.touched_bytes) == sorted(plan.touched_bytes)
        assert 0 <= program.memory.arena_bytes - plan.touched_bytes[-1] < 4096
        if program.work.kind == "eval":
            assert not any(plan.gradients_bytes) and not any(plan.optimizer_state_bytes)


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.pte").write_bytes(b"\x10\x00\x00\x00NO12" + bytes(64))
    with pytest.raises(FormatError, match=r"x\.pte: not a program"):
        read_program(tmp_path / "x.pte")
    with pytest.raises(FormatError, match=r"gone\.pte"):
        read_program(tmp_path / "gone.pte")


@settings(max_examples=200)
@given(seed=st.integers(0, 1 << 62))
def test_a_damaged_program_is_read_or_refused_with_one_line(seed: int, cnn_bundle: Path) -> None:
    path = cnn_bundle.parent / "damaged.pte"
    path.write_bytes(mutated_bytes((cnn_bundle / "programs" / "grow-block2.pte").read_bytes(), seed))
    try:
        read_program(path)
    except FormatError as error:
        assert "damaged.pte" in str(error) and "\n" not in str(error)
