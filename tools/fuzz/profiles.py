"""Fuzz the reader of what strangers send: `python -m tools.fuzz.profiles --seconds 60`.

Profiles are damaged at random; reading must end with a value or with a FormatError of one line
that names the file. Anything else is printed with its seed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from device_profiles.errors import FormatError
from device_profiles.files import read_json, to_json
from device_profiles.manifest import Manifest, Program
from device_profiles.predict import predict
from device_profiles.profile import DeviceProfile
from profiler.report.page import page_of
from profiler.report.table import profile_table
from tests.support.mutations import mutated

ROOT = Path(__file__).resolve().parents[2]


def try_profile(path: Path, document: bytes) -> str | None:
    """What went wrong, None where it went as it should. What is read must also be shown, drawn and predicted from."""
    path.write_bytes(document)
    try:
        profile = read_json(path, DeviceProfile)
        to_json(profile)
        profile_table(profile)
        page_of([profile])
        predict(_program(), profile)
    except FormatError as error:
        return None if "\n" not in str(error) else f"more than one line: {error}"
    except Exception as error:  # whatever else is raised is what is looked for
        return f"{type(error).__name__}: {error}"
    return None


def _program() -> Program:
    return read_json(ROOT / "tests" / "golden" / "manifest.json", Manifest).programs[0]


def main() -> int:
    """Fuzz for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    golden = (ROOT / "tests" / "golden" / "profile.json").read_bytes()
    end, seed, found = time.monotonic() + given.seconds, given.seed, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            complaint = try_profile(Path(folder) / "p.json", mutated(golden, seed))
            if complaint is not None:
                found += 1
                print(f"seed {seed}: {complaint}")
            seed += 1
    print(f"{seed - given.seed} documents, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
