"""Nothing that a profile says is more than text on its page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_profiles.files import read_json
from device_profiles.profile import Conditions, Cost, DeviceProfile, Gpu
from device_profiles.timeline import Timeline
from profiler.report.compare import comparison_of
from profiler.report.page import comparison_page, page_of
from tests.support.strangers import Parsed, assert_harmless, evil, of_strangers

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def _profile() -> DeviceProfile:
    """With everything that a page can show of one: accelerators, conditions, a step over time, what does not fit."""
    profile = read_json(GOLDEN / "profile.json", DeviceProfile)
    cost = profile.costs[0]
    timed = msgspec.structs.replace(
        cost,
        conditions=Conditions(seconds=1.0, throttled=True, throttled_because="hot"),
        timeline=Timeline(seconds=(0.0, 1.0), resident_bytes=(1 << 20, 2 << 20)),
    )
    killed = msgspec.structs.replace(
        cost, fits=False, measured_peak_bytes=None, unexplained_bytes=None, reason="killed"
    )
    device = msgspec.structs.replace(profile.device, gpus=(Gpu(name="one", driver="two"),))
    return msgspec.structs.replace(profile, device=device, costs=(timed, killed))


@pytest.mark.parametrize("count", [1, 2])
def test_every_string_of_a_profile_is_text(count: int) -> None:
    parsed = assert_harmless(page_of([of_strangers(_profile())] * count))
    shown = ("device.name", "device.cpu_model", "device.kernel", "device.architecture", "device.gpus.name", "model")
    for place in (*shown, "software", "software key", "costs.program", "costs.reason", "measurement.measured_at"):
        assert parsed.shows(f"DeviceProfile.{place}"), place
    assert parsed.shows("DeviceProfile.costs.conditions.throttled_because")


def test_every_string_of_profiles_that_are_compared_is_text() -> None:
    one = of_strangers(_profile())
    other = msgspec.structs.replace(one, software={evil("another"): "1"})
    parsed = assert_harmless(comparison_page([one, other], comparison_of([one, other], threshold=0.02)))
    for place in ("DeviceProfile.device.name", "DeviceProfile.costs.program", "another"):
        assert parsed.shows(place), place


def test_every_string_is_replaced() -> None:
    profile = of_strangers(_profile())
    assert profile.software == {evil("DeviceProfile.software key"): evil("DeviceProfile.software")}
    assert profile.device.accelerator == evil("DeviceProfile.device.accelerator")  # the golden one has none
    assert isinstance(profile.costs[0], Cost) and profile.costs[1].reason == evil("DeviceProfile.costs.reason")


@pytest.mark.parametrize("template", ["<p>{}</p>", '<p title="{}"></p>', "<p title='{}'></p>", "<title>{}</title>"])
def test_a_string_that_was_not_escaped_would_be_found(template: str) -> None:
    with pytest.raises(AssertionError):
        assert_harmless(template.format(evil("x")))
    with pytest.raises(AssertionError, match="lost its ampersand"):
        assert_harmless(template.format(evil("x").replace('"', "&quot;").replace("'", "&#39;").replace("<", "&lt;")))
    assert not Parsed(template.format(evil("x"))).shows("x")
