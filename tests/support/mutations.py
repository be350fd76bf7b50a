"""Damage documents as strangers and broken disks would: bytes, numbers, fields and structure."""

from __future__ import annotations

import json
import random
from typing import Any

_NUMBERS = [0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**64, -(2**63), 0.5, -0.0, 1e308, 1e-308]
_TEXTS = ["", "\x00", "\x1b[2J", "a\nb", "../..", "<script>alert(1)</script>", "é" * 500, "\ud800"]


def mutated(document: bytes, seed: int) -> bytes:
    """One or some changes, of a kind that follows from the seed."""
    choose = random.Random(seed)
    if choose.random() < 0.4:
        return _bytes_mutated(document, choose)
    value = json.loads(document)
    for _ in range(choose.randint(1, 3)):
        value = _value_mutated(value, choose)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def mutated_bytes(document: bytes, seed: int) -> bytes:
    """Some bytes changed, left out, added or doubled."""
    return _bytes_mutated(document, random.Random(seed))


def _bytes_mutated(document: bytes, choose: random.Random) -> bytes:
    data = bytearray(document)
    for _ in range(choose.randint(1, 8)):
        at = choose.randrange(len(data)) if data else 0
        kind = choose.randrange(4)
        if kind == 0 and data:
            data[at] = choose.randrange(256)
        elif kind == 1:
            del data[at : at + choose.randint(1, 64)]
        elif kind == 2:
            data[at:at] = bytes(choose.randrange(256) for _ in range(choose.randint(1, 8)))
        else:
            data[at:at] = data[at : at + choose.randint(1, 64)]
    return bytes(data)


def _value_mutated(value: Any, choose: random.Random) -> Any:
    """Walk to a random place of the document and change what is there."""
    if isinstance(value, dict) and value and choose.random() < 0.93:
        key = choose.choice(list(value))
        if choose.random() < 0.04:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: _value_mutated(value[key], choose)}
    if isinstance(value, list) and value and choose.random() < 0.93:
        at = choose.randrange(len(value))
        return [*value[:at], _value_mutated(value[at], choose), *value[at + 1 :]]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int) and choose.random() < 0.6:
        return value + choose.choice([-1, 1, 4096, -4096])
    other: list[Any] = [*_NUMBERS, *_TEXTS, None, True, [], {}, [value], {"surplus": value}]
    return choose.choice(other)
