"""`python -m profiler` is `profl-profile`."""

from __future__ import annotations

import sys

from profiler.cli import console

if __name__ == "__main__":
    sys.exit(console())
