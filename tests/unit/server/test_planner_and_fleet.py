"""The planner's choices and the fleet file."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from device_profiles.errors import FormatError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest
from device_profiles.model import Partition
from device_profiles.plan import Plan
from device_profiles.predict import predict
from device_profiles.profile import DeviceProfile
from device_profiles.promise import DEFAULT_MARGIN, PREPARING_BYTES, promise_of, promise_of_prediction
from device_profiles.work import distill, joint
from server.fleet.reading import read_fleet
from server.planner.planner import candidates_of, make_plan
from server.planner.tables import plan_table

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def manifest() -> Manifest:
    return read_json(GOLDEN / "manifest.json", Manifest)


@pytest.fixture
def profile() -> DeviceProfile:
    return read_json(GOLDEN / "profile.json", DeviceProfile)


def _limited(profile: DeviceProfile, limit_bytes: int) -> DeviceProfile:
    return msgspec.structs.replace(profile, device=msgspec.structs.replace(profile.device, limit_bytes=limit_bytes))


def test_a_client_works_where_the_promise_with_its_margin_fits(manifest: Manifest, profile: DeviceProfile) -> None:
    promise = promise_of(profile.costs[0], 0.05)
    profiles = {"just": _limited(profile, promise), "below": _limited(profile, promise - 1)}
    step = make_plan(manifest, profile.bundle_sha256, profiles, margin=0.05).steps[0]
    just, below = step.clients
    assert just.fits and just.program == "grow-block1" and just.predicted_peak_bytes == promise
    assert not below.fits and below.program is None and "MB" in str(below.reason)
    assert step.participation == 0.5


@pytest.mark.parametrize(
    ("predicted_mb", "measured_mb", "promised_mb"),
    [(100, 90, 105), (100, 120, 126), (100, None, 105), (12, 11, PREPARING_BYTES // 2**20)],
)
def test_the_promise_is_above_prediction_measurement_and_what_the_command_needs_before_it_trains(
    profile: DeviceProfile, predicted_mb: int, measured_mb: int | None, promised_mb: int
) -> None:
    cost = msgspec.structs.replace(
        profile.costs[0],
        predicted_peak_bytes=predicted_mb << 20,
        measured_peak_bytes=None if measured_mb is None else measured_mb << 20,
    )
    assert promise_of(cost, 0.05) == promised_mb << 20


def test_a_program_that_was_killed_is_not_planned(manifest: Manifest, profile: DeviceProfile) -> None:
    killed = msgspec.structs.replace(profile.costs[0], fits=False, measured_peak_bytes=None, reason="does not fit")
    changed = msgspec.structs.replace(profile, costs=(killed, *profile.costs[1:]))
    step = make_plan(manifest, profile.bundle_sha256, {"a": changed}).steps[0]
    assert step.participation == 0 and step.clients[0].reason == "does not fit"


def _distilled(profile: DeviceProfile, partition: Partition, peaks: dict[int, int]) -> DeviceProfile:
    """`profile` with distillations of these blocks as well."""
    measured = tuple(
        msgspec.structs.replace(
            profile.costs[0],
            program=f"distill-block{block}",
            work=distill(partition, block),
            block=block,
            predicted_peak_bytes=peak,
            measured_peak_bytes=peak,
        )
        for block, peak in peaks.items()
    )
    return msgspec.structs.replace(profile, costs=(*profile.costs, *measured))


def test_distillations_are_planned_for_every_client_where_they_were_profiled(
    manifest: Manifest, profile: DeviceProfile
) -> None:
    limit = profile.device.limit_bytes
    assert limit is not None
    profiles = {"both": _distilled(profile, manifest.partition, {2: 40 << 20, 3: limit}), "grown": profile}
    plan = make_plan(manifest, profile.bundle_sha256, profiles, margin=0.05)
    assert [step.block for step in plan.distillations] == [2, 3]
    both, grown = plan.distillations[0].clients
    assert both.program == "distill-block2" and both.predicted_peak_bytes == int((40 << 20) * 1.05)
    assert both.measured and not grown.measured
    program = next(program for program in manifest.programs if program.name == "distill-block2")
    assert grown.predicted_peak_bytes == promise_of_prediction(predict(program, profile), 0.05)
    assert plan.distillations[0].participation == 1.0
    too_large = plan.distillations[1].clients[0]
    assert not too_large.fits and "needs" in str(too_large.reason)
    assert plan.steps == make_plan(manifest, profile.bundle_sha256, {**profiles, "both": profile}).steps
    assert make_plan(manifest, profile.bundle_sha256, {"grown": profile}).distillations == ()


def test_with_runs_of_blocks_a_client_trains_the_longest_that_fits(manifest: Manifest, profile: DeviceProfile) -> None:
    limit = profile.device.limit_bytes
    assert limit is not None
    grown = next(cost for cost in profile.costs if cost.program == "grow-block3")
    peaks = {1: limit, 2: 40 << 20}
    runs = tuple(
        msgspec.structs.replace(
            grown,
            program=f"joint-blocks{first}-3",
            work=joint(manifest.partition, first, 3),
            predicted_peak_bytes=peak,
            measured_peak_bytes=peak,
        )
        for first, peak in peaks.items()
    )
    profiles = {"runs": msgspec.structs.replace(profile, costs=(*profile.costs, *runs)), "blocks": profile}
    plan = make_plan(manifest, profile.bundle_sha256, profiles, margin=0.05, joint=True)
    with_runs, without = plan.steps[2].clients
    assert with_runs.program == "joint-blocks2-3" and with_runs.predicted_peak_bytes == int((40 << 20) * 1.05)
    assert without.program == "grow-block3"
    table = plan_table(plan)
    assert "2-3 42.0" in table and table.endswith("1-2: blocks 1 to 2 are trained together")
    alone = make_plan(manifest, profile.bundle_sha256, profiles, margin=0.05)
    assert [step.clients[0].program for step in alone.steps] == ["grow-block1", "grow-block2", "grow-block3"]


def test_the_table_has_distillations_below_the_blocks_that_they_are_of(
    manifest: Manifest, profile: DeviceProfile
) -> None:
    limit = profile.device.limit_bytes or 0
    profiles = {"board": _distilled(profile, manifest.partition, {2: 40 << 20, 3: limit})}
    lines = plan_table(make_plan(manifest, profile.bundle_sha256, profiles, margin=0.05)).splitlines()
    assert len(lines) == 8 and lines[3] == ""
    assert lines[4] == "to distil    limit MB             block 2   block 3"
    assert lines[0].index("block 2") == lines[4].index("block 2")
    assert lines[5].split() == ["board", f"{limit / 2**20:.1f}", "42.0", "-"]
    assert lines[6].split() == ["with", "work", "100%", "0%"]
    without = plan_table(make_plan(manifest, profile.bundle_sha256, {"board": profile}))
    assert "distil" not in without and len(without.splitlines()) == 4


def test_a_plan_of_a_release_without_distillations_is_read(tmp_path: Path) -> None:
    values = json.loads((GOLDEN / "plan.json").read_text())
    del values["distillations"]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    assert read_json(tmp_path / "plan.json", Plan).distillations == ()


def test_a_client_is_planned_for_from_a_profile_of_another_bundle(manifest: Manifest, profile: DeviceProfile) -> None:
    step = make_plan(manifest, "0" * 64, {"a": profile}).steps[0]
    program = next(program for program in manifest.programs if program.name == "grow-block1")
    assert step.clients[0].predicted_peak_bytes == promise_of_prediction(predict(program, profile), DEFAULT_MARGIN)
    assert not step.clients[0].measured


def test_a_profile_that_predicts_nothing_leaves_its_client_without_work(
    manifest: Manifest, profile: DeviceProfile
) -> None:
    killed = tuple(msgspec.structs.replace(c, fits=False, measured_peak_bytes=None) for c in profile.costs)
    step = make_plan(manifest, "0" * 64, {"a": msgspec.structs.replace(profile, costs=killed)}).steps[0]
    assert "grow-block1 cannot be predicted: profile: costs: no training program was measured" in str(
        step.clients[0].reason
    )


def test_the_candidates_of_a_client_begin_with_what_it_is_given(manifest: Manifest, profile: DeviceProfile) -> None:
    plan = make_plan(manifest, profile.bundle_sha256, {"a": profile}, margin=0.05)
    for step, candidates in zip(
        plan.steps, candidates_of(manifest, profile.bundle_sha256, "a", profile, margin=0.05), strict=True
    ):
        plans = [candidate.plan for candidate in candidates]
        assert next((plan for plan in plans if plan.fits), plans[-1]) == step.clients[0]


def test_the_demo_fleet_is_valid() -> None:
    assert len(read_fleet(ROOT / "examples" / "fleets" / "demo.toml").clients) == 6


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[model]\nname = 3\n", "model.name"),
        ("surplus = 1\n", "surplus"),
        ("[model\n", "fleet.toml"),
        ("[model]\nname='cnn'\n[data]\nsources=['digits']\n[[clients]]\nname='a'\nlimit_mb=-1\n", "limit_mb"),
        ("[model]\nname='cnn'\n[data]\nsources=['digits']\n" + "[[clients]]\nname='a'\nlimit_mb=9\n" * 2, "same name"),
        (
            "[model]\nname='cnn'\n[data]\nsources=['digits']\n[training]\naugment='crop-flip'\ncache_prefix='int8'\n"
            "[[clients]]\nname='a'\nlimit_mb=9\n",
            "training.cache_prefix",
        ),
        (
            "[model]\nname='cnn'\n[data]\nsources=['digits']\n[training]\nproximal=0.1\nclip_norm=1.0\n"
            "[[clients]]\nname='a'\nlimit_mb=9\n",
            "training.clip_norm cannot be combined with training.proximal",
        ),
        (
            "[model]\nname='cnn'\n[data]\nsources=['digits']\n[promises]\nsource='pytorch'\nrecompute=true\n"
            "[[clients]]\nname='a'\nlimit_mb=9\n",
            "promises.recompute is about the light runtime's plans; leave it out, or write promises.source",
        ),
    ],
)
def test_a_wrong_fleet_file_names_the_field(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(FormatError, match=named):
        read_fleet(tmp_path / "fleet.toml")
