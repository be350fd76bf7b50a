"""The table of operators: two readers that agree, and every way of not keeping to a row is refused."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from device_profiles.operators import Operator, table
from edge_runtime.device import _operators
from tests.support.operator_stacks import (
    TELLING,
    Stack,
    Tensor,
    certain_violations,
    changed,
    stack_of,
    valid_stack,
    valid_values,
)

OPERATORS = table().operators
RULES = [(name, rule) for name, operator in OPERATORS.items() for rule in operator.rules]


def _native(name: str, stack: Stack) -> str:
    converted: list[Any] = []
    for value in stack:
        if isinstance(value, Tensor):
            converted.append((value.dtype, list(value.shape)))
        else:
            converted.append(list(value) if isinstance(value, tuple) else value)
    return str(_operators.check(name, converted))


def test_both_readers_have_all_operators_and_each_has_its_kernel() -> None:
    assert list(OPERATORS) == _operators.operators()
    registered = [name for name in _operators.registered() if name.startswith("profl::")]
    assert registered == [f"profl::{name}.out" for name in OPERATORS]


@pytest.mark.parametrize("name", OPERATORS)
def test_what_keeps_to_a_row_is_taken(name: str) -> None:
    for seed in range(3):
        stack = valid_stack(name, seed)
        assert OPERATORS[name].violation(stack) is None
        assert _native(name, stack) == ""


@pytest.mark.parametrize("name", OPERATORS)
def test_a_wrong_kind_type_count_or_range_is_refused_by_name(name: str) -> None:
    for what, stack in certain_violations(OPERATORS[name], valid_stack(name)):
        # An argument that may be left out makes one fewer none too few.
        ours, theirs = OPERATORS[name].violation(stack), _native(name, stack)
        assert ours and theirs, what
        parameter = what.partition(":")[0]
        if ":" in what:
            assert ours.startswith(f"{parameter} is ") and theirs.startswith(f"{parameter} is "), what


@pytest.mark.parametrize(("name", "rule"), RULES)
def test_every_rule_refuses_what_does_not_keep_to_it(name: str, rule: str) -> None:
    operator, choose = OPERATORS[name], random.Random(7)
    for _ in range(20_000):
        stack = _nearly_valid(operator, choose)
        if stack is None or operator.violation(stack) != f"does not keep to {rule}":
            continue
        assert _native(name, stack).startswith(f"does not keep to {rule}")
        return
    raise AssertionError("nothing was found that keeps to everything else")


def _nearly_valid(operator: Operator, choose: random.Random) -> Stack | None:
    if any("(" in rule and not re.search(r"[=<>]", rule) for rule in operator.rules) or operator.name == "crop":
        return changed(valid_stack(operator.name), choose)
    stack = stack_of(operator, valid_values(operator, choose))
    assert stack is not None
    if choose.random() < 0.3:
        return changed(stack, choose)
    values = valid_values(operator, choose)
    for symbol in choose.sample(sorted(values), min(len(values), choose.choice((1, 2)))):
        values[symbol] = choose.choice(TELLING)
    return stack_of(operator, values)


@pytest.mark.parametrize("name", OPERATORS)
def test_both_readers_agree_on_anything(name: str) -> None:
    choose = random.Random(3)
    taken = refused = 0
    for _ in range(300):
        stack = valid_stack(name, choose.randrange(4))
        for _ in range(choose.choice((1, 1, 2))):
            stack = changed(stack, choose)
        ours, theirs = OPERATORS[name].violation(stack), _native(name, stack)
        assert (ours or "") == theirs.partition(" (")[0] or (ours is not None and theirs.startswith(ours)), stack
        taken, refused = taken + (ours is None), refused + (ours is not None)
    assert refused > 0
