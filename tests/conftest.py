"""Settings of every test."""

from __future__ import annotations

from hypothesis import settings

# Times differ between machines; examples do not differ between runs, so that a red CI is red again at the desk.
settings.register_profile("profl", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("profl")
