"""docs/operators.md lists the operators that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device_profiles.operators import table

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs" / "operators.md").read_text()
KERNELS = ROOT / "edge_runtime" / "csrc" / "kernels"


def test_the_table_of_kernels_is_made_from_the_table_of_operators() -> None:
    from tools.generate_operators import document

    assert document() == DOCUMENT


def test_every_operator_has_its_stack_and_no_other_has() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENT.partition("## Kernels")[2], re.MULTILINE)
    assert documented == list(table().operators)


def test_every_operator_that_is_captured_is_named_and_no_other_is() -> None:
    pytest.importorskip("torch", reason="the exporter needs torch")
    from edge_runtime.export.operators import CAPTURES, IDENTITIES

    table = DOCUMENT.partition("## From PyTorch")[2].partition("\n\n`profl-edge models")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"same", "valid", "adaptive_"}
    adaptive = {f"adaptive_{name}" for name in named if "_pool" in name}
    aten = {"constant_pad_nd", "alias"}  # what PyTorch makes of `pad`, and a view of the whole
    captured = {*CAPTURES, *IDENTITIES}
    within = {name for name in captured if name.startswith("_")} - named  # PyTorch's names within its own definitions
    assert named | adaptive | aten == captured - within


def test_activations_have_the_same_numbers_in_programs_and_kernels() -> None:
    pytest.importorskip("torch", reason="the exporter needs torch")
    from edge_runtime.export.operators.activation import ACTIVATIONS

    header = (KERNELS / "activation" / "activation.h").read_text()
    enumeration = header.partition("enum class Activation")[2].partition("};")[0]
    assert {name: int(number) for name, number in re.findall(r"(\w+) = (\d+),", enumeration)} == ACTIVATIONS
