"""`python -m edge_runtime.device` is `profl-edge`."""

from __future__ import annotations

import sys

from edge_runtime.device.cli import main

sys.exit(main())
