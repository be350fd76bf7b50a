"""What msgspec says of a document, in our own words: the one place that reads it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from device_profiles.wrong_values import explained, is_other_document


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"kind": "type"}):
    count: int = 1
    kind: Literal["a", "b"] = "a"


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    part: _Part | None = None
    parts: tuple[_Part, ...] = ()
    named: dict[str, _Part] = {}
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    sizes: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = (1,)
    two: tuple[int, int] = (1, 2)
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]+$", description="small letters")] = "a"
    plain: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")] = "a"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"name": "x", "parst": []}, "parst: is not known here; did you mean part or parts?"),
        (
            {"name": "x", "qqq": 1},
            "qqq: is not known here; there are: name, part, parts, named, share, sizes, two, code, plain",
        ),
        ({"name": "x", "part": {"cuont": 1}}, "part.cuont: is not known here; did you mean count?"),
        ({"name": "x", "parts": [{}, {"kind": "a"}]}, "parts[1].kind: is not known here; there are: count, type"),
        ({"name": "x", "named": {"y": {"qqq": 1}}}, "named[...].qqq: is not known here; there are: count, type"),
        ({}, "name: is missing"),
        ({"name": "x", "part": {"type": "c"}}, "part.type: 'c' is none of a, b"),
        ({"name": "x", "parts": [{"count": "1"}]}, "parts[0].count: is a text, must be a whole number"),
        ([], "is a list, must be an object"),
        ({"name": 3}, "name: is a whole number, must be a text"),
        ({"name": "x", "part": 1.5}, "part: is a number, must be an object"),
        ({"name": "x", "share": 0}, "share: must be above 0"),
        ({"name": "x", "share": 2}, "share: must be at most 1"),
        ({"name": "x", "share": "a"}, "share: is a text, must be a number"),
        ({"name": "x", "sizes": []}, "sizes: must have a length of at least 1"),
        ({"name": "x", "two": [1]}, "two: has length 1, must have 2"),
        ({"name": "x", "code": "A"}, "code: must be small letters"),
        ({"name": "x", "plain": "A"}, "plain: is not of the form that it must have"),
    ],
)
def test_the_key_comes_first_and_then_what_is_wrong(document: Any, expected: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, _Document, strict=True)
    assert explained(caught.value, _Document) == expected


@pytest.mark.parametrize("kind", [_Document, dict[str, int], tuple[_Part, ...], None])
@pytest.mark.parametrize("text", ["", "{", '{"a`": 1}', '{"name": 1}', '[{"a": 1}]', '{"a": {"b": "c"}}', "1", "null"])
def test_whatever_the_document_is_there_is_one_line(text: str, kind: Any) -> None:
    for read_as in (_Document, dict[str, int], list[_Part]):
        try:
            msgspec.json.decode(text, type=read_as)
        except msgspec.DecodeError as error:
            said = explained(error, kind)
            assert said and "\n" not in said and " - at " not in said


def test_another_document_is_told_from_one_with_a_fault_inside() -> None:
    for document, other in (
        ({}, True),
        ({"name": "x", "q": 1}, True),
        ([], True),
        ({"name": "x", "part": {"q": 1}}, False),
    ):
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.convert(document, _Document, strict=True)
        assert is_other_document(caught.value) is other
