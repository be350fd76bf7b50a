"""How long a training of a federation will take, as its device's profile says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_profiles.files import read_json
from device_profiles.profile import DeviceProfile
from edge_runtime.device.federation.train_command import usual_seconds
from tests.support.federation_client import train_order


@pytest.mark.parametrize(
    ("changed", "seconds"),
    [({"steps": 40}, 20.0), ({"epochs": 3}, 15.0), ({"steps": 40, "max_seconds": 5.0}, 5.0), ({"work": "head"}, None)],
)
def test_the_time_that_is_left_follows_from_the_profile(changed: dict[str, Any], seconds: float | None) -> None:
    profile = read_json(Path(__file__).parents[2] / "golden" / "profile.json", DeviceProfile)
    cost = msgspec.structs.replace(profile.costs[0], step_seconds_median=0.5, batch=8)
    profile = msgspec.structs.replace(profile, costs=(cost,))
    order = train_order({}, weights=(), **{"work": cost.work.name, **changed})
    assert usual_seconds(order, profile, examples=87) == seconds
    assert usual_seconds(order, None, examples=87) is None
