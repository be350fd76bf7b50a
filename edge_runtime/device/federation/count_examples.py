"""`python -m edge_runtime.device.federation.count_examples DATA`: how many examples a data set trains with.

A process of its own: what reads data sets has no place in the client, which stays for as long as the device runs.
"""

from __future__ import annotations

import subprocess
import sys

from device_profiles.errors import DataError, ProflError


def count_examples(data: str) -> int:
    """Of `data`, as `profl-edge train --data` takes it. Raises DataError with the reason where it cannot be read."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, data],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 and done.stdout.strip().isdigit():
        return int(done.stdout)
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise DataError(lines[-1])


def _main(data: str) -> int:
    from edge_runtime.device.data.open import open_raw

    try:
        found = open_raw(data, split="train")
        print(len(found.labels) // (getattr(found, "targets", 0) or 1))
    except (ProflError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
