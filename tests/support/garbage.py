"""Imported for what it sets: how often Python looks for objects that only refer to each other.

Exports make millions of objects, of which few go in cycles. By Python's own thresholds a quarter of their time is spent
on looking for those.
"""

from __future__ import annotations

import gc

gc.set_threshold(50_000, 20, 20)
