"""Settings of every test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before PyTorch is imported, here and in the processes that tests start: the tests' layers are small, workers of
# pytest-xdist share the cores, and a result must not hang on how many of them there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

import tests.support.garbage  # noqa: F401
from tests.support import bundles

# Times differ between machines; examples do not differ between runs, so that a red CI is red again at the desk.
settings.register_profile("profl", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("profl")
_SHARED = pytest.StashKey[Path | None]()


def pytest_configure(config: pytest.Config) -> None:
    """Workers of pytest-xdist begin behind this, and share the folder of bundles."""
    config.stash[_SHARED] = bundles.begin_session()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tests share bundles, so that none may change one."""
    folder, session.config.stash[_SHARED] = session.config.stash[_SHARED], None
    if folder is not None and (changed := bundles.end_session(folder)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nshared bundles were changed: {', '.join(changed)}")


@pytest.fixture(autouse=True, scope="session")
def _interrupts_arrive() -> None:
    """Shells start what runs in the background with SIGINT ignored, which every process below would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
