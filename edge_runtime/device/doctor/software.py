"""What is installed: Python, this release, its native module, and what reads data and signs requests."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from importlib import metadata

from device_profiles.extras import extra_remedy
from edge_runtime.device.doctor.row import Row

_FAST = ("avx512", "avx2", "neon")
"""Instruction sets with kernels of their own; `baseline` is what every processor of the kind runs."""


def software_rows(
    *, is_installed: Callable[[str], bool] | None = None, instruction_set: Callable[[], str] | None = None
) -> Iterator[Row]:
    """Rows of the packages; other answers than this interpreter's in tests."""
    there = is_installed or _is_installed
    kernel = f"{platform.system()} {platform.release()}"
    yield Row("Python", f"{platform.python_version()} on {platform.machine()}, {kernel}")
    yield _release()
    yield _kernels(instruction_set or _instruction_set)
    yield _images(there("PIL"))
    yield _join(there("cryptography") or _has_libcrypto())


def _release() -> Row:
    try:
        return Row("release", f"profl-edge {metadata.version('profl-edge')}")
    except metadata.PackageNotFoundError:
        return Row("release", "runs from its sources")


def _kernels(instruction_set: Callable[[], str]) -> Row:
    try:
        name = instruction_set()
    except ImportError as error:
        reason = " ".join(str(error).split())
        return Row(
            "kernels",
            f"the native module cannot be loaded: {reason}",
            "missing",
            "install the wheel that is built for this Python and processor",
            stops=True,
        )
    if name in _FAST:
        return Row("kernels", name)
    if os.environ.get("PROFL_INSTRUCTION_SET"):
        return Row("kernels", name, "note", "unset PROFL_INSTRUCTION_SET for the fastest that the processor has")
    return Row("kernels", f"{name}: the processor has no wider instructions, so that a step takes longer", "note")


def _images(pillow: bool) -> Row:
    own = "npz, idx, cifar10, cifar100, images (pgm, ppm"
    if pillow:
        return Row("data readers", f"{own}, png, jpeg and others)")
    return Row("data readers", f"{own})", "note", f"for images as png, jpeg and others, {extra_remedy('images')}")


def _join(signs: bool) -> Row:
    if signs:
        return Row("federation", "profl-edge join can sign its requests")
    return Row("federation", "nothing signs requests", "note", f"for profl-edge join, {extra_remedy('join')}")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _instruction_set() -> str:
    native = importlib.import_module("edge_runtime.device._native")
    return str(native.instruction_set())


def _has_libcrypto() -> bool:
    try:
        from edge_runtime.device.fleet_api.libcrypto import Libcrypto
    except ImportError:  # a Python without OpenSSL
        return False
    return Libcrypto.loaded() is not None
