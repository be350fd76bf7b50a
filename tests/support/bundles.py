"""Bundles that tests share: each is exported once a session, by the worker that asks for it first.

A bundle lies under the digest of what was asked for, in a folder that the workers of a session have in common and that
goes with the session: sources do not change while it runs. Whoever changes a bundle takes a copy (`copied`); one that
was changed in its place fails the session.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.device_commands import profl_edge

_FOLDER = "PROFL_TEST_SHARED"
"""Of the environment, which the workers have from the process that starts them."""


def exported(model: str = "cnn", **options: Any) -> Path:
    """What `export_bundle` writes without verification, exported in this process, which has PyTorch."""
    from edge_runtime.export.targets.native import export_bundle

    return once(
        ("exported", model, sorted(options.items())),
        lambda output: export_bundle(model, output, verify=False, **options),
    )


def commanded(*options: object) -> Path:
    """What `profl-edge export` writes without verification: this process stays without PyTorch."""
    for package in ("torch", "executorch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"exporting a bundle needs {package}: pip install profl-edge[export]")

    def export(output: Path) -> None:
        done = profl_edge("export", *options, "--no-verify", "-o", output)
        assert done.status == 0, done.errors

    return once(("commanded", options), export)


def copied(bundle: Path, folder: Path) -> Path:
    """A copy in `folder`, to be changed."""
    shutil.copytree(bundle, folder)
    return folder


def once(what: object, make: Callable[[Path], object]) -> Path:
    """The folder that `make` has made for `what`, which is told apart by how it prints."""
    shared = Path(os.environ[_FOLDER])
    made = shared / hashlib.sha256(repr(what).encode()).hexdigest()[:20]
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(made)
    return made


def begin_session() -> Path | None:
    """Make the folder of a session; None where another process has made it, whose worker this one is."""
    if _FOLDER in os.environ:
        return None
    folder = tempfile.mkdtemp(prefix="profl-tests-")
    os.environ[_FOLDER] = folder
    return Path(folder)


def end_session(folder: Path) -> list[str]:
    """Remove the folder of a session; the files of bundles in it that are not what was exported."""
    del os.environ[_FOLDER]
    found = [str(path) for manifest in sorted(folder.glob("*/manifest.json")) for path in _changed(manifest)]
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _changed(manifest: Path) -> list[Path]:
    bundle = manifest.parent
    stated = {bundle / file["path"]: file["sha256"] for file in json.loads(manifest.read_text())["files"]}
    there = {path for path in bundle.rglob("*") if path.is_file()} - {manifest}
    differ = [path for path in there & stated.keys() if hashlib.sha256(path.read_bytes()).hexdigest() != stated[path]]
    return sorted([*differ, *(there ^ stated.keys())])
