"""Run tests on mutants: in a copy of the tree, each in a process of its own that was forked with pytest loaded."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COPIED = (
    "device_profiles",
    "edge_runtime",
    "profiler",
    "server",
    "tools",
    "tests",
    "examples",
    "docs",
    "pyproject.toml",
)
_CUSTOMIZE = """
import sys
# An editable install would find the modules of the tree that it was made from.
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__name__.endswith("RedirectingFinder")]
"""
_SETTINGS = """
from hypothesis import Phase
# A failure is enough: nobody reads the smallest one.
settings.register_profile("mutants", settings.get_profile("profl"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutants")
"""
PASSED = 0


def copy_tree(root: Path, copy: Path) -> None:
    """Copy what tests need of `root`, built modules included."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "csrc"))
        elif source.exists():
            shutil.copy2(source, copy / name)
    (copy / "sitecustomize.py").write_text(_CUSTOMIZE)
    with (copy / "tests" / "conftest.py").open("a") as settings:
        settings.write(_SETTINGS)


def run_tests(copy: Path, module: str, tests: Sequence[str], *, seconds: float, log: Path) -> int | None:
    """Exit status of pytest, stopped at the first failure; None where it took longer than `seconds`.

    `module` must come from the copy. The output is left in `log`.
    """
    return _forked(lambda: _pytest(copy, module, tests), seconds, log)


def _pytest(copy: Path, module: str, tests: Sequence[str]) -> int:
    os.chdir(copy)
    # Plugins of whatever else is installed would be loaded anew for each mutant, and take longer than the tests.
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.dont_write_bytecode = True  # a module changed within a second would be taken for the one before
    exec(_CUSTOMIZE)
    sys.path.insert(0, str(copy))
    here = Path(__file__).resolve().parents[2]
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    import pytest

    status = int(
        pytest.main(
            ["-q", "-x", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--assert=plain", "--tb=line", *tests]
        )
    )
    loaded = sys.modules.get(module)
    if status == PASSED and (loaded is None or not str(loaded.__file__).startswith(str(copy))):
        print(f"{module} was not tested: {'not imported' if loaded is None else loaded.__file__}")
        return 99
    return status


def _forked(body: Callable[[], int], seconds: float, log: Path) -> int | None:
    process = os.fork()
    if process == 0:
        status = 98
        try:
            os.setsid()
            gc.freeze()  # pytest collects again and again in the end, and none of what was there before may go
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = sys.stderr = os.fdopen(output, "w", buffering=1)
            status = body()
            sys.stdout.flush()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None
