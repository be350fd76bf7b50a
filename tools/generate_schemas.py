"""Write the JSON Schemas of the vocabulary to docs/schemas: `python -m tools.generate_schemas`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

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
        (folder / f"{name}.json").write_text(json.dumps(schema_of(kind), indent=2) + "\n", encoding="utf-8")


def schema_of(kind: object) -> Any:
    """The JSON Schema of a document, its descriptions without the indentation of the sources.

    msgspec removes it from 0.23 on, Python itself from 3.13 on.
    """
    return _without_indentation(msgspec.json.schema(kind))


def _without_indentation(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return [_without_indentation(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    text = schema.get("description")
    rest = {key: _without_indentation(part) for key, part in schema.items()}
    return rest | {"description": inspect.cleandoc(text)} if isinstance(text, str) else rest


if __name__ == "__main__":
    main()
