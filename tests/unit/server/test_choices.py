"""What a kind of device may be asked for, and what it is promised to need."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from device_profiles.errors import FormatError
from device_profiles.profile import DeviceProfile
from device_profiles.work import grow, of_block
from server.planner import choices
from server.planner.choices import NEVER, Choice, Device, Offer, budget_of, in_order
from tests.unit.server.test_bundle_plan import MANIFEST, MARGIN, PROFILE, limited

OTHER = "0" * 64
WORK = grow(MANIFEST.partition, 1)
OFFER = Offer(work=WORK, program="grow-block1")
MB = 1 << 20


def _device(profile: DeviceProfile, examples: int = 0) -> Device:
    return Device(profile, PROFILE.bundle_sha256, margin=MARGIN, examples=examples)


@pytest.mark.parametrize(
    ("promise", "reason", "needs"), [(5, "", 5), (5, "broken", NEVER), (None, "", NEVER), (None, "broken", NEVER)]
)
def test_what_cannot_be_done_needs_more_than_any_budget(promise: int | None, reason: str, needs: int) -> None:
    assert Choice(offer=OFFER, promise=promise, reason=reason).needs == needs


def test_what_does_not_fit_says_what_it_needs_and_what_there_is() -> None:
    choice = Choice(offer=OFFER, promise=40 * MB + 1)
    plan = choice.planned("a", 1, 30 * MB)
    assert (plan.fits, plan.work, plan.program) == (False, None, None)
    assert plan.reason == "needs 40.1 MB, may use 30.0 MB"
    plan = choice.planned("a", 1, 40 * MB + 1)
    assert (plan.fits, plan.work, plan.program, plan.reason) == (True, WORK, "grow-block1", None)


def test_variants_that_keep_the_result_are_tried_first() -> None:
    trades = ("default", "recompute", "bfloat16")
    choices = [Choice(offer=Offer(work=WORK, program="p", trade=trade), promise=1) for trade in trades]
    assert [choice.offer.trade for choice in in_order(choices[::-1])] == list(trades)


def test_a_device_without_a_budget_is_named() -> None:
    unknown = msgspec.structs.replace(PROFILE.device, limit_bytes=None, memory_available_bytes=None)
    with pytest.raises(FormatError, match="profile of a: neither limit_bytes nor memory_available_bytes is known"):
        budget_of("a", msgspec.structs.replace(PROFILE, device=unknown))
    assert budget_of("a", limited(7, OTHER)) == 7


def test_devices_are_alike_where_all_that_is_known_of_them_is() -> None:
    killed = tuple(msgspec.structs.replace(c, fits=False, measured_peak_bytes=None) for c in PROFILE.costs)
    unknown = msgspec.structs.replace(PROFILE, costs=killed)
    assert _device(PROFILE).likeness == _device(limited(5, PROFILE.bundle_sha256)).likeness
    found = [_device(PROFILE), _device(PROFILE, 1), _device(limited(5, OTHER)), _device(unknown)]
    found += [_device(msgspec.structs.replace(unknown, costs=killed[:1]))]
    assert len({device.likeness for device in found}) == len(found)


def test_works_of_a_device_are_those_that_are_trained() -> None:
    evaluated = msgspec.structs.replace(PROFILE.costs[0], program="e", work=of_block("eval", MANIFEST.partition, 1))
    both = msgspec.structs.replace(PROFILE, costs=(PROFILE.costs[0], evaluated))
    assert _device(both).works == {WORK} and _device(limited(5, OTHER)).works == set()


@pytest.mark.parametrize(("given", "said"), [("killed at 3 MB", "killed at 3 MB"), (None, "does not fit")])
def test_a_measurement_that_did_not_fit_says_why(given: str | None, said: str) -> None:
    cost = msgspec.structs.replace(PROFILE.costs[0], fits=False, reason=given)
    choice = _device(msgspec.structs.replace(PROFILE, costs=(cost, *PROFILE.costs[1:]))).choice(OFFER)
    assert choice.reason == said and choice.measured


def test_seconds_that_were_not_measured_are_predicted_where_the_program_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choices, "predict", lambda *asked, **more: SimpleNamespace(seconds_per_step=2.5))
    program = next(p for p in MANIFEST.programs if p.name == "grow-block1")
    known = Offer(work=WORK, program="grow-block1", plan=program)
    unmeasured = msgspec.structs.replace(PROFILE.costs[0], step_seconds_median=None)
    device = _device(msgspec.structs.replace(PROFILE, costs=(unmeasured, *PROFILE.costs[1:])))
    assert device.choice(known).seconds == 2.5
    assert device.choice(OFFER).seconds is None
    assert _device(PROFILE).choice(known).seconds == PROFILE.costs[0].step_seconds_median


def test_a_profile_of_pytorch_predicts_nothing() -> None:
    program = next(p for p in MANIFEST.programs if p.name == "grow-block1")
    device = _device(msgspec.structs.replace(limited(90 * MB, OTHER), runtime="torch"))
    choice = device.choice(Offer(work=WORK, program="grow-block1", plan=program))
    assert choice.promise is None and choice.reason.startswith(
        "grow-block1 cannot be predicted: profile: runtime is torch"
    )
