"""What the training process imports, and the small parts it has of its own."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_runtime.device.worker as worker
from device_profiles.errors import UsageError
from device_profiles.outputs import OutputFile
from edge_runtime.device import _native
from edge_runtime.device.worker.prefix_cache import PrefixCache
from edge_runtime.device.worker.text import json_text

_LIGHT = {
    "__future__",
    "errno",
    "fcntl",
    "importlib.machinery",
    "marshal",
    "math",
    "mmap",
    "os",
    "stat",
    "sys",
    "time",
    "io",
    "zlib",
}
_DIGESTS = {"_sha2", "_sha256", "hashlib"}
"""The first that there is, and only where a digest is made."""
_SHARED = [f"device_profiles/{name}.py" for name in ("errors", "outputs", "seal", "settings", "streams")]
_SHARED += ["edge_runtime/device/limits/mark.py"]
_ROOT = Path(__file__).parents[3]
_TYPES_ONLY = "job.py"
"""What a job holds, in words for mypy: nothing of the training process imports it when it runs."""
_WORKER = sorted(path for path in Path(worker.__path__[0]).glob("*.py") if path.name != _TYPES_ONLY)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def _imported(node: ast.AST) -> set[str]:
    """Modules that run-time code imports; those for types only are not."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return set()
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {node.module or ""}
    return {name for child in ast.iter_child_nodes(node) for name in _imported(child)}


@pytest.mark.parametrize("path", [*_WORKER, *(_ROOT / path for path in _SHARED)], ids=lambda path: path.stem)
def test_the_training_process_imports_only_what_is_light(path: Path) -> None:
    names = _imported(ast.parse(path.read_text(encoding="utf-8")))
    others = {name for name in names if not name.startswith("edge_runtime.device.worker")}
    shared = {path.removesuffix(".py").replace("/", ".") for path in _SHARED}
    assert others <= _LIGHT | shared | (_DIGESTS if path.stem == "seal" else set())
    assert f"edge_runtime.device.worker.{_TYPES_ONLY.removesuffix('.py')}" not in names


@given(_JSON)
def test_json_is_what_the_json_module_reads(value: object) -> None:
    assert json.loads(json_text(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="JSON has no"):
        json_text(value)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), OutputFile(str(path)) as output:
        output.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with OutputFile(str(path)) as output:
        output.write(b"new")
        output.write(memoryview(b"er"))
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {
        "path": str(tmp_path / "new" / "f.features"),
        "digest": "d",
        "dtype": "float32",
        "channels": 4,
        "values": 256,
        "versions": 2,
    }
    cache = PrefixCache(_native, job, examples=500)  # type: ignore[arg-type]  # no program is needed here
    cache.check_space()
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 10, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(UsageError, match=r"--cache-dir .*the features require 3\.9 MB, .* free"):
        cache.check_space()
