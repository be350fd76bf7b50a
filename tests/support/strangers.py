"""Structs whose every string is markup, and what a parser makes of a page that shows them."""

from __future__ import annotations

import types
from html.parser import HTMLParser
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

Kind = TypeVar("Kind", bound=msgspec.Struct)


def evil(place: str) -> str:
    """A text that shows in a page whatever was not escaped for it: a tag, an attribute or a character reference."""
    return f"""&lt;{place}" onevil="1' onevil='1><evil>$\\frac$</script></style></svg></pre></title>"""


def of_strangers(value: Kind) -> Kind:
    """`value` with `evil` in place of every string, set or not, of it and of the structs inside of it."""
    marked: Kind = _marked(value, type(value), type(value).__name__)
    return marked


def _marked(value: Any, hint: Any, place: str) -> Any:
    if hint is str:
        return evil(place)
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(value, msgspec.Struct):
        hints = get_type_hints(type(value))
        fields = [field.name for field in msgspec.structs.fields(value)]
        changed = {name: _marked(getattr(value, name), hints[name], f"{place}.{name}") for name in fields}
        return msgspec.structs.replace(value, **changed)
    if origin in (Union, types.UnionType):
        if str in arguments and (value is None or isinstance(value, str)):
            return evil(place)
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        return value if value is None or len(kinds) > 1 else _marked(value, kinds[0], place)
    if origin is tuple and len(arguments) == 2:
        return tuple(_marked(item, arguments[0], place) for item in value)
    if origin is dict:
        pairs = (value or ({"": ""} if arguments == (str, str) else {})).items()
        return {_marked(k, arguments[0], f"{place} key"): _marked(v, arguments[1], place) for k, v in pairs}
    if origin is Literal or not isinstance(value, str):
        return value
    raise TypeError(f"{place}: no text for {hint}")


class Parsed(HTMLParser):
    """What a reader of the page sees: its tags, the names of their attributes, and all text and attributes' values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.texts += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def shows(self, place: str) -> bool:
        """Whether the string of this place is on the page, letter for letter."""
        return any(evil(place) in text for text in self.texts)


def assert_harmless(page: str) -> Parsed:
    """Fail where any string of a stranger became more than text."""
    parsed = Parsed(page)
    assert not parsed.tags & {"evil", "script"}, "a string became a tag"
    assert "onevil" not in parsed.attributes, "a string left its attribute"
    # Cut off or not, each text of a stranger begins with a reference that must come out as it went in.
    assert not [text for text in parsed.texts if "onevil" in text and "&lt;" not in text], "a string lost its ampersand"
    return parsed
