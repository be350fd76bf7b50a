"""`train --work ... --variant ...`: the program of a bundle that is asked for, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_profiles.errors import UsageError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest, Program
from device_profiles.work import Grow, Head, Joint
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.chosen import chosen_programs
from edge_runtime.device.prepare.request import TrainRequest

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
MANIFEST = read_json(GOLDEN / "manifest.json", Manifest)
DEFAULT = next(program for program in MANIFEST.programs if program.name == "grow-block1")
LIGHT = msgspec.structs.replace(DEFAULT, name="grow-block1-recompute", variant="recompute")
assert isinstance(DEFAULT.work, Grow)
WORK = DEFAULT.work


def bundle(*more: Program) -> Bundle:
    manifest = msgspec.structs.replace(MANIFEST, programs=(*MANIFEST.programs, *more))
    return Bundle(path=Path("bundle"), manifest=manifest, digest="0" * 64)


def test_a_variant_is_a_program_of_its_own() -> None:
    there = bundle(LIGHT)
    assert there.training_program(WORK) == DEFAULT
    assert there.training_program(WORK, "recompute") == LIGHT
    request = TrainRequest(bundle=Path("bundle"), data="npz:x", work=WORK, variant="recompute")
    assert chosen_programs(request, there) == (None, LIGHT)


def test_a_bundle_may_have_the_variant_alone() -> None:
    programs = tuple(program for program in MANIFEST.programs if program != DEFAULT)
    there = Bundle(
        path=Path("bundle"), manifest=msgspec.structs.replace(MANIFEST, programs=(*programs, LIGHT)), digest="0" * 64
    )
    assert there.training_program(WORK, "recompute") == LIGHT
    with pytest.raises(
        UsageError, match=r"^bundle has no such program of grow-units.* but in variants; give --variant recompute$"
    ):
        there.training_program(WORK)


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match=r"^--variant micro2: .*; it has recompute; give one of these$"):
        bundle(LIGHT).training_program(WORK, "micro2")
    with pytest.raises(UsageError, match=r"^--variant micro2: .*; leave it out$"):
        bundle().training_program(WORK, "micro2")
    for work in (Joint(first_unit=0, last_unit=99), Head(last_unit=99)):
        with pytest.raises(UsageError, match=rf"^--work {work.name}: .* has no such program; it has grow-units"):
            bundle(LIGHT).training_program(work, "recompute")


def test_a_variant_is_of_a_run_of_units() -> None:
    request = TrainRequest(bundle=Path("bundle"), data="npz:x", block=1, variant="recompute")
    with pytest.raises(UsageError, match=r"^--variant requires --work; give both, or leave it out$"):
        chosen_programs(request, bundle(LIGHT))


def test_a_manifest_may_name_programs_by_their_variants_and_by_nothing_else() -> None:
    files = (
        *MANIFEST.files,
        *(
            msgspec.structs.replace(MANIFEST.files[0], path=f"programs/{name}.pte")
            for name in ("grow-block1-recompute", "grow-block1-odd")
        ),
    )
    manifest = msgspec.structs.replace(MANIFEST, programs=(*MANIFEST.programs, LIGHT), files=files)
    manifest.check("manifest")
    odd = msgspec.structs.replace(LIGHT, name="grow-block1-odd")
    with pytest.raises(Exception, match="grow-block1-odd: is no name for its work"):
        msgspec.structs.replace(manifest, programs=(*MANIFEST.programs, odd)).check("manifest")
