"""Write profiles again as this release writes them, without timelines: `python -m tools.rewrite_profiles [PROFILE...]`.

Without arguments: the golden one of the tests and those that are shipped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from device_profiles.files import read_json, write_json
from device_profiles.profile import DeviceProfile

ROOT = Path(__file__).resolve().parents[1]


def main(paths: list[Path]) -> None:
    """Rewrite each of `paths`; raises FormatError for what is no profile."""
    usual = [ROOT / "tests" / "golden" / "profile.json", *sorted((ROOT / "device_profiles" / "data").glob("*.json"))]
    for path in paths or usual:
        before = path.stat().st_size
        write_json(path, read_json(path, DeviceProfile).without_timelines())
        print(f"{path.name}: {before} -> {path.stat().st_size} bytes")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
