"""`python -m tools.experiments.one FLEET.json FOLDER`: one run of a study, continued where it was broken off."""

from __future__ import annotations

import sys
from pathlib import Path

from device_profiles.errors import ProflError
from device_profiles.files import read_json
from server.fleet.fleet import Fleet
from server.running.progress import TerminalProgress
from server.running.run_fleet import run_fleet


def main() -> int:
    """Run with the simulation engine."""
    progress = TerminalProgress()
    try:
        fleet = read_json(Path(sys.argv[1]), Fleet)
        run_fleet(fleet, Path(sys.argv[2]), resume=True, observer=progress, note=progress.note, engine="simulation")
    except ProflError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
