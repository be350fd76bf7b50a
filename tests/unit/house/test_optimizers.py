"""What an optimizer is stands in few files, those that docs/contributing.md lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device_profiles.optimizers import OPTIMIZERS

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("device_profiles", "edge_runtime", "profiler", "server")
LISTED = {
    "device_profiles/optimizers.py",
    "edge_runtime/device/prepare/hyperparameters.py",
    "edge_runtime/export/optimizers/__init__.py",
    "server/engines/simulation/optimizers.py",
}
"""And the optimizer's own file."""


def _files_with(name: str) -> set[str]:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    literal = re.compile(rf"[\"']{name}[\"']")
    return {path.relative_to(ROOT).as_posix() for path in files if literal.search(path.read_text(encoding="utf-8"))}


def test_an_optimizer_is_named_in_the_listed_files_and_its_own() -> None:
    assert _files_with("adamw") == LISTED | {"edge_runtime/export/optimizers/adamw.py"}


def test_no_file_asks_which_optimizer_there_is() -> None:
    asks = re.compile(r"optimizer(\.name)? [!=]= |optimizer(\.name)? (not )?in \(")
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    found = {path.relative_to(ROOT).as_posix() for path in files if asks.search(path.read_text(encoding="utf-8"))}
    assert found == set()


@pytest.mark.parametrize("file", sorted(LISTED))
def test_the_list_stands_in_the_guide(file: str) -> None:
    assert file in (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")


def test_the_exporter_has_an_optimizer_for_every_name_that_follows_one_of_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="the exporter needs torch")
    from device_profiles.manifest import Optimizer
    from edge_runtime.export.optimizers import optimizer_of

    for name, kind in OPTIMIZERS.items():
        ours = optimizer_of(Optimizer(name=name))
        theirs = getattr(torch.optim, ours.torch_name)([torch.zeros(1)], lr=kind.learning_rate, **ours.torch_options())
        assert theirs.defaults["weight_decay"] == 0
