"""Any value of the vocabulary survives a file, and any file that is not one is refused in one line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.errors import DivergedError, FormatError, ProflError
from device_profiles.files import read_json, to_json
from device_profiles.manifest import Manifest
from device_profiles.model import Block, Partition
from device_profiles.plan import Plan
from device_profiles.profile import DeviceProfile
from device_profiles.update import UpdateMetadata
from tests.support.structs import strategy_of

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
KINDS: dict[str, type[Any]] = {"manifest": Manifest, "profile": DeviceProfile, "plan": Plan}


@pytest.mark.parametrize("kind", [*KINDS.values(), UpdateMetadata])
@given(data=st.data())
def test_any_value_survives_writing_and_reading(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(strategy_of(kind))
    assert msgspec.json.decode(to_json(value), type=kind, strict=True) == value


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_any_value_obeys_the_schema_in_the_docs(name: str, data: st.DataObject) -> None:
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_bytes())
    validator = jsonschema.Draft202012Validator(schema)
    document = json.loads(to_json(data.draw(strategy_of(KINDS[name]))))
    validator.validate(document)
    assert not validator.is_valid({**document, "unheard_of": 1})


@given(value=strategy_of(UpdateMetadata))
def test_any_update_metadata_survives_a_safetensors_header(value: UpdateMetadata) -> None:
    assert UpdateMetadata.from_strings(value.to_strings(), "update") == value


@given(raw=st.binary(max_size=200))
def test_bytes_that_are_no_file_of_ours_are_a_format_error(raw: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "profile.json"
    path.write_bytes(raw)
    with pytest.raises(FormatError) as caught:
        read_json(path, DeviceProfile)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@given(data=st.data())
def test_a_manifest_with_one_byte_changed_is_read_or_refused_never_worse(
    data: st.DataObject, tmp_path_factory: Any
) -> None:
    raw = bytearray((GOLDEN / "manifest.json").read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "manifest.json"
    path.write_bytes(bytes(raw))
    try:
        assert isinstance(read_json(path, Manifest), Manifest)
    except FormatError as error:
        assert str(error).startswith(str(path))


@given(cuts=st.sets(st.integers(1, 11), max_size=5))
def test_a_partition_passes_exactly_when_it_covers_every_unit_once(cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), 12]
    blocks = tuple(
        Block(index=index, first_unit=first, last_unit=after - 1)
        for index, (first, after) in enumerate(itertools.pairwise(bounds), start=1)
    )
    Partition(blocks=blocks).check(12)
    for wrong, units in ((blocks, 13), (blocks[:-1], 12), (blocks[::-1], 12 if len(blocks) > 1 else 13)):
        with pytest.raises(FormatError, match="partition"):
            Partition(blocks=wrong).check(units)


def test_every_error_of_the_tree_ends_a_command_as_the_docs_say() -> None:
    def below(kind: type[ProflError]) -> list[type[ProflError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    assert {kind.exit_status for kind in below(ProflError)} == {1, 2, 3}
    assert [kind for kind in below(ProflError) if kind.exit_status == 3] == [DivergedError]
