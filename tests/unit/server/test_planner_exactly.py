"""What a plan of a bundle says at its edges: nobody, nothing that fits, nothing that is known."""

from __future__ import annotations

import msgspec
import pytest

from device_profiles.predict import predict
from device_profiles.profile import DeviceProfile
from device_profiles.promise import promise_of_prediction
from device_profiles.work import joint
from server.planner.planner import BundlePlan, candidates_of
from tests.unit.server.test_bundle_plan import MANIFEST, MARGIN, PROFILE, gathered, limited

OTHER = "0" * 64
MB = 1 << 20


def _with_large_second_block(limit_bytes: int) -> DeviceProfile:
    """40 MB for blocks 1 and 3, 63 MB for block 2."""
    profile = limited(limit_bytes, PROFILE.bundle_sha256)
    costs = [
        msgspec.structs.replace(cost, measured_peak_bytes=60 * MB) if cost.program == "grow-block2" else cost
        for cost in profile.costs
    ]
    return msgspec.structs.replace(profile, costs=tuple(costs))


def _with_runs() -> DeviceProfile:
    """Has measured all three blocks together as well."""
    grown = next(cost for cost in PROFILE.costs if cost.program == "grow-block3")
    run = msgspec.structs.replace(grown, program="joint-blocks1-3", work=joint(MANIFEST.partition, 1, 3))
    return msgspec.structs.replace(limited(90 * MB, PROFILE.bundle_sha256), costs=(*PROFILE.costs, run))


@pytest.mark.parametrize(("limit_mb", "block", "fits"), [(90, 2, True), (45, 1, True), (1, 2, False)])
def test_a_client_is_shown_with_the_largest_promise_that_it_holds_else_with_the_largest(
    limit_mb: int, block: int, fits: bool
) -> None:
    plan = BundlePlan(MANIFEST, gathered(a=_with_large_second_block(limit_mb * MB))).document("", MARGIN)
    (client,) = plan.clients
    assert (client.block, client.fits) == (block, fits)
    assert plan.participation == float(fits)


def test_where_nothing_is_known_but_one_promise_that_is_the_one_to_show() -> None:
    killed = msgspec.structs.replace(PROFILE.costs[1], fits=False, measured_peak_bytes=None, reason="does not fit")
    profile = msgspec.structs.replace(limited(90 * MB, PROFILE.bundle_sha256), costs=(killed,))
    (client,) = BundlePlan(MANIFEST, gathered(a=profile)).document("", MARGIN).clients
    assert client.block == 2 and not client.fits and client.predicted_peak_bytes is not None


def test_a_plan_for_nobody_has_nobody_at_work() -> None:
    plan = BundlePlan(MANIFEST, gathered(a=PROFILE)).document("", MARGIN, [])
    assert plan.participation == 0.0 and plan.clients == ()
    assert [(step.participation, step.clients) for step in plan.steps] == [(0.0, ())] * 3


def test_an_engine_asks_nothing_of_a_device_of_which_nothing_is_known() -> None:
    killed = tuple(msgspec.structs.replace(c, fits=False, measured_peak_bytes=None) for c in PROFILE.costs)
    profile = msgspec.structs.replace(limited(90 * MB, OTHER), costs=killed)
    client = BundlePlan(MANIFEST, gathered(a=profile)).client("a", 3)
    assert (client.needs, client.step_seconds, client.trades) == ({}, {}, {})


def test_what_fits_in_no_variant_is_said_of_the_one_that_is_tried_last() -> None:
    program = next(p for p in MANIFEST.programs if p.name == "grow-block1")
    halved = msgspec.structs.replace(program.memory, arena_bytes=program.memory.arena_bytes // 2)
    light = msgspec.structs.replace(program, name="grow-block1-recompute", variant="recompute", memory=halved)
    bundle = msgspec.structs.replace(MANIFEST, programs=(*MANIFEST.programs, light))
    (client,) = BundlePlan(bundle, gathered(a=limited(1, OTHER))).document(OTHER, MARGIN).steps[0].clients
    assert client.predicted_peak_bytes == promise_of_prediction(predict(light, limited(1, OTHER)), MARGIN)


def test_runs_of_blocks_and_examples_count_where_they_are_asked_for() -> None:
    profile, sha = _with_runs(), PROFILE.bundle_sha256
    plan = BundlePlan(MANIFEST, gathered(a=profile)).document(sha, MARGIN)
    assert [step.clients[0].program for step in plan.steps] == ["grow-block1", "grow-block2", "grow-block3"]
    names = [[c.program for c in step] for step in candidates_of(MANIFEST, sha, "a", profile, margin=MARGIN)]
    assert names == [["grow-block1"], ["grow-block2"], ["grow-block3"]]
    longest = candidates_of(MANIFEST, sha, "a", profile, margin=MARGIN, joint=True)[2][0]
    assert longest.program == "joint-blocks1-3"
    other = limited(90 * MB, OTHER)
    for count, step in ((0, candidates_of(MANIFEST, sha, "a", other, margin=MARGIN)[0]),
                        (9, candidates_of(MANIFEST, sha, "a", other, margin=MARGIN, examples=9)[0])):  # fmt: skip
        program = next(p for p in MANIFEST.programs if p.name == step[0].program)
        assert step[0].plan.predicted_peak_bytes == promise_of_prediction(
            predict(program, other, examples=count), MARGIN
        )
