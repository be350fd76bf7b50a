"""The plan of a bundle, client by client, against what each client's own profile says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.plan import ClientPlan
from device_profiles.predict import predict
from device_profiles.profile import DeviceProfile
from device_profiles.promise import promise_of, promise_of_prediction
from device_profiles.work import Distill, Grow, grow, label
from server.planner.planner import BundlePlan, make_plan
from server.planner.profiled import Gathering

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
MANIFEST = read_json(GOLDEN / "manifest.json", Manifest)
PROFILE = read_json(GOLDEN / "profile.json", DeviceProfile)
MARGIN = 0.05


def limited(limit_bytes: int, bundle_sha256: str) -> DeviceProfile:
    device = msgspec.structs.replace(PROFILE.device, limit_bytes=limit_bytes)
    return msgspec.structs.replace(PROFILE, device=device, bundle_sha256=bundle_sha256)


def promised(profile: DeviceProfile, work: Grow, examples: int) -> tuple[int, bool]:
    """What a block needs by a profile alone, and whether that was measured."""
    cost = profile.cost(label(work, MANIFEST.partition)) if profile.bundle_sha256 == PROFILE.bundle_sha256 else None
    if cost is not None:
        return promise_of(cost, MARGIN), True
    program = next(p for p in MANIFEST.programs if p.work == work and p.variant == "default")
    return promise_of_prediction(predict(program, profile, examples=examples), MARGIN), False


clients = st.lists(
    st.tuples(st.integers(30, 90), st.sampled_from([PROFILE.bundle_sha256, "0" * 64]), st.sampled_from([0, 100_000])),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(clients)
def test_every_client_has_the_plan_that_it_would_have_alone(fleet: list[tuple[int, str, int]]) -> None:
    profiles = {f"c{n}": limited(mb << 20, sha) for n, (mb, sha, _) in enumerate(fleet)}
    examples = {f"c{n}": count for n, (_, _, count) in enumerate(fleet)}
    plan = make_plan(MANIFEST, PROFILE.bundle_sha256, profiles, margin=MARGIN, examples=examples)
    for step in plan.steps:
        assert [client.client for client in step.clients] == list(profiles)
        assert step.participation == sum(client.fits for client in step.clients) / len(fleet)
        for client in step.clients:
            work = grow(MANIFEST.partition, step.block)
            need, measured = promised(profiles[client.client], work, examples[client.client])
            budget = profiles[client.client].device.limit_bytes
            assert (client.predicted_peak_bytes, client.budget_bytes, client.measured) == (need, budget, measured)
            assert client.fits == (need <= budget) == (client.work == work) == (client.reason is None)
    held: list[ClientPlan] = [client for client in plan.clients if client.fits]
    assert plan.participation == len(held) / len(fleet)


def gathered(**profiles: DeviceProfile) -> Gathering:
    found = Gathering(PROFILE.bundle_sha256, margin=MARGIN)
    for name, profile in profiles.items():
        found.add(name, profile)
    return found


def test_devices_whose_profiles_say_the_same_are_one_kind_and_a_better_profile_takes_the_place_of_the_first() -> None:
    measured, other = limited(90 << 20, PROFILE.bundle_sha256), limited(80 << 20, "0" * 64)
    found = gathered(a=measured, b=limited(30 << 20, PROFILE.bundle_sha256), c=other)
    plan = BundlePlan(MANIFEST, found).document(PROFILE.bundle_sha256, MARGIN)
    assert {client.client: client.measured for client in plan.clients} == {"a": True, "b": True, "c": False}
    found.add("c", measured)
    assert found.names == ("a", "b", "c")
    again = BundlePlan(MANIFEST, found).document(PROFILE.bundle_sha256, MARGIN)
    assert {client.client: client.budget_bytes for client in again.clients}["c"] == 90 << 20
    assert all(client.measured for client in again.clients)


def test_an_engine_knows_what_all_the_programs_of_a_bundle_need() -> None:
    plan = BundlePlan(MANIFEST, gathered(a=limited(90 << 20, PROFILE.bundle_sha256)))
    client = plan.client("a", 7)
    works = {p.work.name for p in MANIFEST.programs if isinstance(p.work, (Grow, Distill))}
    assert set(client.needs) == works and client.examples == 7 and client.budget_bytes == 90 << 20
    cost = PROFILE.cost("grow-block1")
    assert cost is not None
    assert client.needs[cost.work.name] == promise_of(cost, MARGIN)
    assert client.step_seconds[cost.work.name] == pytest.approx(cost.step_seconds_median)
    assert client.trades == {}


def test_an_engine_asks_for_the_variant_that_fits() -> None:
    program = next(p for p in MANIFEST.programs if p.name == "grow-block1")
    light = msgspec.structs.replace(
        program,
        name="grow-block1-recompute",
        variant="recompute",
        memory=msgspec.structs.replace(program.memory, arena_bytes=program.memory.arena_bytes // 2),
    )
    bundle = msgspec.structs.replace(MANIFEST, programs=(*MANIFEST.programs, light))
    other = "0" * 64
    need = promise_of_prediction(predict(program, limited(1, other)), MARGIN)
    less = promise_of_prediction(predict(light, limited(1, other)), MARGIN)
    assert less < need
    found = gathered(rich=limited(need, other), poor=limited(need - 1, other), poorest=limited(less - 1, other))
    plan = BundlePlan(bundle, found)
    work = program.work
    assert [plan.client(name, 0).trades.get(work.name) for name in ("rich", "poor")] == [None, "recompute"]
    assert [plan.client(name, 0).needs[work.name] for name in ("rich", "poor", "poorest")] == [need, less, less]
    step = plan.document(other, MARGIN, ["poor", "rich", "poorest"]).steps[0]
    assert [client.program for client in step.clients] == ["grow-block1-recompute", "grow-block1", None]
