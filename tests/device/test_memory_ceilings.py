"""What the project is for: the peaks of ResNet18 at full size stay where they are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.support.bundles import commanded
from tests.support.device_commands import profl_edge

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="exporting needs executorch: pip install profl-edge[export]"
)

MB = 1 << 20
BLOCKS = {1: 84, 2: 66, 3: 59, 4: 89}
"""MB of the whole process in which each default block may be trained, output module included: measured, and 3 MB."""
ANY_UNIT, ANY_UNIT_AT_ITS_LEANEST = 95, 72


@pytest.fixture(scope="module")
def resnet18() -> Path:
    return commanded("--model", "resnet18", "--batch", 32)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_trains_within_its_ceiling_and_its_promise(block: int, resnet18: Path, tmp_path: Path) -> None:
    report = profl_edge(
        "train", resnet18, "--block", block, "--data", "digits", "--steps", "1", "--threads", "2", "-o",
        tmp_path / "update", "--json",
    ).report()  # fmt: skip
    assert report["measured_peak_bytes"] <= BLOCKS[block] * MB
    assert report["predicted_peak_bytes"] <= BLOCKS[block] * MB


def test_arenas_hold_little_more_than_what_must_live_at_once(resnet18: Path) -> None:
    programs = json.loads((resnet18 / "manifest.json").read_text())["programs"]
    packed = {p["name"]: p["memory"]["arena_bytes"] / p["memory"]["live_bytes"] for p in programs}
    assert max(packed.values()) <= 1.05, packed


@pytest.mark.parametrize(
    ("options", "ceiling"),
    [
        ((), ANY_UNIT),
        (("--micro-batch", "16", "--momentum-dtype", "bfloat16"), ANY_UNIT_AT_ITS_LEANEST),
    ],
    ids=["as it is", "micro-batches"],
)
def test_the_unit_with_the_largest_peak_stays_below_its_ceiling(
    options: tuple[str, ...], ceiling: int, tmp_path: Path
) -> None:
    bundle, units = tmp_path / "units", ",".join(map(str, range(9)))
    model = ("--model", "resnet18", "--partition", units, "--batch", "32", "--block", "2", *options)
    profl_edge("export", *model, "--no-verify", "-o", bundle, "--json").report()
    train = ("train", bundle, "--block", "2", "--data", "digits", "--steps", "1", "--threads", "2", "--json")
    assert profl_edge(*train, "-o", tmp_path / "update").report()["measured_peak_bytes"] <= ceiling * MB
