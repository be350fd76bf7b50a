"""Hypothesis strategies for the vocabulary's structs, derived from their fields."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

_INTEGERS = st.integers(-(2**63), 2**63 - 1)
# JSON has neither NaN nor infinity, and UTF-8 no lone surrogates.
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: _INTEGERS,
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    bool: st.booleans(),
    type(None): st.none(),
    msgspec.UnsetType: st.just(msgspec.UNSET),
}


def strategy_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of `kind`: a plain type, Literal, union, tuple[X, ...], dict[X, Y] or a struct of such."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        return st.builds(kind, **{f.name: strategy_of(hints[f.name]) for f in msgspec.structs.fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([strategy_of(argument) for argument in arguments])
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return st.lists(strategy_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(strategy_of(arguments[0]), strategy_of(arguments[1]), max_size=3)
    raise TypeError(f"no strategy for {kind}")
