"""The house rules: who may import whom, and that the device side stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("device_profiles", "edge_runtime.export", "edge_runtime.device", "profiler", "server")
ALLOWED = {
    "device_profiles": set(),
    "edge_runtime.device": {"device_profiles"},
    "edge_runtime.export": {"device_profiles"},
    "profiler": {"device_profiles", "edge_runtime.device"},
    "server": {"device_profiles", "edge_runtime.device", "edge_runtime.export"},
}
HEAVY = {"torch", "executorch", "flwr", "onnx"}
TORCH_METER = ("torch_step.py", "torch_plan.py")
"""Processes of the profiler that measure PyTorch; nothing else of the device side may know it, or the exporter."""
HOLDS_AGAINST_TORCH = "verify.py"
"""The module of the exporter that runs a program with the real kernels, before a bundle is written."""
LIGHT_ROOMS = ("device_profiles", "edge_runtime.device", "profiler")


def _sources() -> list[tuple[str, Path]]:
    found = []
    for package in ("device_profiles", "edge_runtime", "profiler", "server"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            room = next((r for r in ROOMS if name == r or name.startswith(r + ".")), None)
            if room is not None:
                found.append((room, path))
    return found


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _room_of(name: str) -> str | None:
    return next((room for room in ROOMS if name == room or name.startswith(room + ".")), None)


def test_there_are_sources_in_every_room() -> None:
    assert {room for room, _ in _sources()} == set(ROOMS)


@pytest.mark.parametrize(("room", "path"), _sources(), ids=lambda value: getattr(value, "name", value))
def test_imports_follow_the_arrows(room: str, path: Path) -> None:
    reached = {target for name in _imports(path) if (target := _room_of(name)) is not None} - {room}
    more = {"edge_runtime.export"} if _measures_torch(path) else set()
    more |= {"edge_runtime.device"} if _verifies(path) else set()
    assert reached <= ALLOWED[room] | more


def _verifies(path: Path) -> bool:
    return path.parent.name == "export" and path.name == HOLDS_AGAINST_TORCH


def test_no_module_of_the_exporter_needs_the_native_one_before_it_is_asked_to_verify() -> None:
    importers = [
        path.name
        for room, path in _sources()
        if room == "edge_runtime.export" and "edge_runtime.export.verify" in _imports_at_the_top(path)
    ]
    assert importers == []


def _imports_at_the_top(path: Path) -> set[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.module for node in body if isinstance(node, ast.ImportFrom) and node.module}


def _measures_torch(path: Path) -> bool:
    return path.parent.name == "profiler" and path.name in TORCH_METER


def test_no_module_of_the_profiler_imports_the_processes_that_need_torch() -> None:
    importers = [
        path.name
        for room, path in _sources()
        if room == "profiler" and path.name not in TORCH_METER
        if _imports(path) & {f"profiler.{name.removesuffix('.py')}" for name in TORCH_METER}
    ]
    assert importers == []


@pytest.mark.parametrize(
    ("room", "path"),
    [source for source in _sources() if source[0] in LIGHT_ROOMS],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_device_side_never_names_a_heavy_package(room: str, path: Path) -> None:
    allowed = {"torch"} if _measures_torch(path) else set()
    assert not {name.split(".")[0] for name in _imports(path)} & HEAVY - allowed


GUARD = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "executorch", "flwr", "onnx"}:
            raise RuntimeError("imported " + name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["command", *sys.argv[2:]] if len(sys.argv) > 1 else ["command"]
import runpy
runpy.run_module(MODULE, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("edge_runtime.device", ["--help"]),
        ("edge_runtime.device", ["train", "--help"]),
        ("edge_runtime.device", ["eval", "--help"]),
        ("edge_runtime.device", ["bench", "--help"]),
        ("edge_runtime.device", ["inspect", "--help"]),
        ("profiler", ["--help"]),
        ("profiler", ["run", "--help"]),
        ("profiler", ["show", "--help"]),
        ("profiler", ["fit", "--help"]),
        ("profiler", ["compare", "--help"]),
        ("profiler", ["predict", "--help"]),
        ("server", ["--help"]),
        ("server", ["plan", "--help"]),
        ("server", ["run", "--help"]),
    ],
)
def test_help_works_without_the_heavy_packages(module: str, arguments: list[str]) -> None:
    code = f"MODULE = {module!r}\n{GUARD}"
    finished = subprocess.run(
        [sys.executable, "-c", code, "--", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stderr
    assert "Usage:" in finished.stdout
