"""The house rules: who may import whom, and that the device side stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("device_profiles", "edge_runtime", "profiler", "server")
SIDES = (
    "device_profiles",
    "edge_runtime.device",
    "edge_runtime.experiments",
    "edge_runtime.export",
    "profiler",
    "server",
)
ALLOWED = {
    "device_profiles": set(),
    "edge_runtime.device": {"device_profiles"},
    "edge_runtime.experiments": {"device_profiles", "edge_runtime.device"},
    "edge_runtime.export": {"device_profiles"},
    "profiler": {"device_profiles", "edge_runtime.device"},
    "server": {"device_profiles", "edge_runtime.device", "edge_runtime.export"},
}
"""Who may import whom, side by side."""
EXCEPTIONS = {
    "profiler.torch": {"edge_runtime.export"},  # its processes measure PyTorch
    "edge_runtime.export.verify": {"edge_runtime.device"},  # runs a program with the real kernels
}
HEAVY = {"torch", "executorch", "flwr", "onnx"}
TORCH_PROCESSES = ("profiler.torch.step", "profiler.torch.plan")
"""What else of the device side may know torch: nothing."""
LIGHT_SIDES = ("device_profiles", "edge_runtime.device", "edge_runtime.experiments", "profiler")


def _modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = _modules()


def _imports(tree: ast.AST) -> set[str]:
    """Every module that is named, and what is taken out of one where it is a module itself."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            taken = {f"{node.module}.{alias.name}" for alias in node.names}
            inside = taken & MODULES.keys()
            names |= inside if inside == taken else inside | {node.module}
    return names


IMPORTS = {name: _imports(ast.parse(path.read_text(encoding="utf-8"))) for name, path in MODULES.items()}


def _inside(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def _side_of(name: str) -> str | None:
    return next((side for side in SIDES if _inside(name, side)), None)


def _room_of(module: str) -> str:
    """The folder that a module lies in."""
    return ".".join(MODULES[module].relative_to(ROOT).parts[:-1])


def test_there_are_sources_on_every_side() -> None:
    assert {side for name in MODULES if (side := _side_of(name)) is not None} == set(SIDES)


def test_imports_follow_the_arrows() -> None:
    against = {name: reached for name in MODULES if (reached := _against_the_arrows(name))}
    assert against == {}


def _against_the_arrows(name: str) -> set[str]:
    """The sides that a module imports and may not."""
    side = _side_of(name)
    if side is None:
        return set()
    reached = {target for imported in IMPORTS[name] if (target := _side_of(imported)) is not None} - {side}
    more = next((allowed for place, allowed in EXCEPTIONS.items() if _inside(name, place)), set())
    return reached - ALLOWED[side] - more


def test_a_module_that_goes_against_the_arrows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTS, "profiler.cli", {"server.cli", "device_profiles.errors", "edge_runtime.options"})
    assert _against_the_arrows("profiler.cli") == {"server"}


def test_no_folder_is_reached_from_a_folder_that_it_imports() -> None:
    rooms: dict[str, set[str]] = {}
    for name, imported in IMPORTS.items():
        room = _room_of(name)
        rooms.setdefault(room, set()).update({_room_of(m) for m in imported & MODULES.keys()} - {room})
    assert _cycles(rooms) == []


def test_no_module_is_reached_from_a_module_that_it_imports() -> None:
    assert _cycles({name: imported & MODULES.keys() - {name} for name, imported in IMPORTS.items()}) == []


def test_a_cycle_is_found() -> None:
    assert _cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def _cycles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Those that lie on a cycle, together with whom: everybody that each of them reaches and is reached by."""
    reached = {start: _reached(arrows, start) for start in arrows}
    cycles = {tuple(sorted(b for b in reached[a] if a in reached.get(b, set()))) for a in arrows if a in reached[a]}
    return sorted(list(cycle) for cycle in cycles)


def _reached(arrows: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(arrows.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(arrows.get(name, ()))
    return found


def test_no_module_of_the_exporter_needs_the_native_one_before_it_is_asked_to_verify() -> None:
    importers = [
        name
        for name, path in MODULES.items()
        if _inside(name, "edge_runtime.export") and not _inside(name, "edge_runtime.export.verify")
        if "edge_runtime.export.verify.verify" in _imports_at_the_top(path)
    ]
    assert importers == []


def _imports_at_the_top(path: Path) -> set[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.module for node in body if isinstance(node, ast.ImportFrom) and node.module}


def test_no_module_of_the_profiler_imports_the_processes_that_need_torch() -> None:
    importers = [
        name
        for name, imported in IMPORTS.items()
        if _inside(name, "profiler") and name not in TORCH_PROCESSES and imported & set(TORCH_PROCESSES)
    ]
    assert importers == []


LIGHT = [name for name in MODULES if _side_of(name) in LIGHT_SIDES]


def _packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_the_device_side_never_names_a_heavy_package() -> None:
    assert len(LIGHT) > 100
    allowed = {name: {"torch"} if name in TORCH_PROCESSES else set() for name in LIGHT}
    named = {name: _packages(IMPORTS[name]) & HEAVY - allowed[name] for name in LIGHT}
    assert {name: packages for name, packages in named.items() if packages} == {}


def test_the_device_side_takes_numpy_and_safetensors_for_types_only() -> None:
    taken = {
        name: _packages(_imports(_WithoutTypes().visit(ast.parse(MODULES[name].read_text(encoding="utf-8")))))
        for name in LIGHT
    }
    assert [name for name, packages in taken.items() if packages & {"numpy", "safetensors"}] == []


class _WithoutTypes(ast.NodeTransformer):
    """Takes out what only a type checker reads."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        typed = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if typed else self.generic_visit(node)


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


def test_the_architecture_page_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Rooms")[2]
    for package in ("edge_runtime/export", "edge_runtime/device", "profiler", "server"):
        table = text.partition(f"| `{package}` |")[2].partition("\n\n")[0]
        rooms = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
        assert rooms == {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}, package
