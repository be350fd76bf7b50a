"""The planner's choices and the fleet file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_profiles.bundle import Manifest
from device_profiles.errors import FormatError
from device_profiles.files import read_json
from device_profiles.profile import DeviceProfile
from server.fleet import read_fleet
from server.planner import make_plan, promise_of

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


def test_the_promise_is_above_both_prediction_and_measurement(profile: DeviceProfile) -> None:
    cost = profile.costs[0]
    assert promise_of(cost, 0.05) >= max(cost.predicted_peak_bytes, cost.measured_peak_bytes or 0)


def test_a_program_that_was_killed_is_not_planned(manifest: Manifest, profile: DeviceProfile) -> None:
    killed = msgspec.structs.replace(profile.costs[0], fits=False, measured_peak_bytes=None, reason="does not fit")
    changed = msgspec.structs.replace(profile, costs=(killed, *profile.costs[1:]))
    step = make_plan(manifest, profile.bundle_sha256, {"a": changed}).steps[0]
    assert step.participation == 0 and step.clients[0].reason == "does not fit"


def test_a_profile_of_another_bundle_is_refused(manifest: Manifest, profile: DeviceProfile) -> None:
    with pytest.raises(FormatError, match="another bundle"):
        make_plan(manifest, "0" * 64, {"a": profile})


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
            "training.clip_norm and training.proximal",
        ),
    ],
)
def test_a_wrong_fleet_file_names_the_field(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(FormatError, match=named):
        read_fleet(tmp_path / "fleet.toml")
