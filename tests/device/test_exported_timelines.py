"""The plan over a step, as a bundle states it, agrees with the memory plan of the manifest to the byte."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.timeline import Timelines


@pytest.mark.parametrize("name", ["cnn_bundle", "summing_bundle"])
def test_the_most_that_is_alive_is_what_the_manifest_states(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Path = request.getfixturevalue(name)
    programs = read_json(bundle / "manifest.json", Manifest).programs
    assert {program.work.kind for program in programs} >= {"grow", "eval"}
    planned = read_json(bundle / "timelines.json", Timelines).planned
    assert planned.keys() == {program.name for program in programs}
    for program in programs:
        plan = planned[program.name]
        assert len(plan.work) == program.instructions
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
