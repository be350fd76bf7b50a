"""What each process imports at its start: packages that take a second or hundreds of megabytes come when they are used.

A command without options of its own starts in a tenth of a second; `python -X importtime -m server plan ...` shows
where a longer one spends its time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"
HEAVY = (
    *("torch", "executorch", "onnx", "flwr", "numpy", "safetensors"),
    *("sqlalchemy", "matplotlib", "jinja2", "pandas", "sklearn", "cryptography"),
)
_ASK = f"print(*[name for name in {HEAVY} if name in sys.modules])"
ARRAYS = {"numpy", "safetensors"}


def _imported(code: str) -> set[str]:
    """The heavy packages that a new interpreter has after `code`, whose last line of output they are."""
    command = [sys.executable, "-c", f"import sys\n{code}\n{_ASK}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("server.cli", set()),
        ("profiler.cli", set()),
        ("edge_runtime.device.cli", set()),
        ("server.running.run_fleet", ARRAYS),
        ("server.engines.local.setup", ARRAYS),  # a run that is resumed has its bundle, and exports nothing
        ("server.planner.planner", ARRAYS),
        ("server.report.runs", ARRAYS),
        ("server.finished.merge", ARRAYS),
        ("server.registry.transfer", set()),
    ],
)
def test_a_module_brings_no_more_than_it_needs_at_once(module: str, allowed: set[str]) -> None:
    assert _imported(f"import {module}") <= allowed


def test_the_process_that_flower_starts_for_a_run_has_no_pytorch() -> None:
    pytest.importorskip("flwr", reason="flwr is not installed: profl-edge[federation]")
    assert not _imported("import server.engines.flower.app.server_app") & {"torch", "executorch", "matplotlib"}


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_plan_of_a_bundle_is_made_without_the_packages_of_training_and_pages(where: str, tmp_path: Path) -> None:
    document = json.loads((GOLDEN / "manifest.json").read_text())
    for file in document["files"]:
        file["size_bytes"] = 0
        (tmp_path / "bundle" / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bundle" / file["path"]).touch()
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(document))
    profiles = GOLDEN / "profile.json"
    if where == "folder":
        (tmp_path / "profiles").mkdir()
        (tmp_path / "profiles" / "a.json").write_bytes(profiles.read_bytes())
        profiles = tmp_path / "profiles"
    arguments = ["plan", "--bundle", str(tmp_path / "bundle"), "--profiles", str(profiles)]
    assert _imported(f"from server.cli import cli\ncli.main({arguments}, standalone_mode=False)") <= ARRAYS
