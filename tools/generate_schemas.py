"""Write the JSON Schemas of the vocabulary to docs/schemas: `python tools/generate_schemas.py`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from device_profiles.costs import Costs
from device_profiles.manifest import Manifest
from device_profiles.plan import Plan
from device_profiles.profile import DeviceProfile
from device_profiles.timeline import Timelines


def main() -> None:
    """Write one file for each document."""
    folder = Path(__file__).resolve().parents[1] / "docs" / "schemas"
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"manifest": Manifest, "profile": DeviceProfile, "plan": Plan, "timelines": Timelines, "costs": Costs}
    for name, kind in kinds.items():
        (folder / f"{name}.json").write_text(json.dumps(msgspec.json.schema(kind), indent=2) + "\n")


if __name__ == "__main__":
    main()
