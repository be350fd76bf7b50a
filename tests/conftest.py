"""Settings of every test."""

from __future__ import annotations

import os
import signal

# Before PyTorch is imported, here and in the processes that tests start: the tests' layers are small, workers of
# pytest-xdist share the cores, and a result must not hang on how many of them there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

import tests.support.garbage  # noqa: F401

# Times differ between machines; examples do not differ between runs, so that a red CI is red again at the desk.
settings.register_profile("profl", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("profl")


@pytest.fixture(autouse=True, scope="session")
def _interrupts_arrive() -> None:
    """Shells start what runs in the background with SIGINT ignored, which every process below would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
