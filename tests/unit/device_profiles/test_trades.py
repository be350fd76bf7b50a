"""Names of variants that take less memory."""

from __future__ import annotations

import pytest

from device_profiles.costs import RunCost
from device_profiles.model import Partition
from device_profiles.trades import TRADES, Trade, executions_of, trade_named, trades_of, with_trade
from device_profiles.work import Distill, Grow, Head, Joint, label, programs_of

PARTITION = Partition.ending_with([1, 3])


def _cost(**changes: object) -> RunCost:
    row = {"first_unit": 1, "last_unit": 3, "batch": 8, "micro_batch": 8, "arena_bytes": 1, "frozen_bytes": 0}
    row |= {"workspace_bytes_per_thread": 0, "staging_bytes": 0, "upload_bytes": 0, "download_bytes": 0, "loads": {}}
    return RunCost(**(row | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("trade", TRADES)
def test_a_name_says_its_trade(trade: Trade) -> None:
    name = with_trade("joint-units1-3", trade)
    assert trade_named(name, "joint-units1-3") == trade
    assert (name == "joint-units1-3") == (trade == "default")
    assert trade_named(name + "x", "joint-units1-3") is None


def test_micro_batches_are_counted_by_the_name() -> None:
    assert [executions_of(trade) for trade in TRADES] == [1, 1, 1, 2, 4]


def test_exact_variants_keep_the_result_and_any_come_behind_them() -> None:
    assert trades_of("exact") == ("default", "recompute")
    assert trades_of("any") == TRADES and TRADES[:2] == trades_of("exact")


@pytest.mark.parametrize(
    ("changes", "trade"),
    [
        ({}, "default"),
        ({"variant": "recompute", "recompute_bytes": 1}, "recompute"),
        ({"momentum_dtype": "bfloat16"}, "bfloat16"),
        ({"micro_batch": 4}, "micro2"),
        ({"micro_batch": 2}, "micro4"),
        ({"micro_batch": 1}, None),
        ({"variant": "cached-prefix"}, None),
        ({"momentum_dtype": "bfloat16", "micro_batch": 4}, None),
    ],
)
def test_a_row_of_a_table_is_of_one_trade(changes: dict[str, object], trade: Trade | None) -> None:
    assert _cost(**changes).trade("float32") == trade


def test_what_the_model_is_trained_with_is_no_trade() -> None:
    assert _cost(momentum_dtype="bfloat16").trade("bfloat16") == "default"


def test_an_update_may_come_from_any_variant_of_what_was_asked_for() -> None:
    works = (Grow(first_unit=2, last_unit=3), Joint(first_unit=1, last_unit=3), Head(last_unit=3))
    for work in works:
        names = programs_of(work, PARTITION)
        assert {with_trade(label(work, PARTITION), trade) for trade in TRADES} <= names
    assert programs_of(Distill(first_unit=2, last_unit=3), PARTITION) == {
        "distill-block2",
        "distill-block2-cached-prefix",
    }
    assert "grow-block2-cached-prefix" in programs_of(works[0], PARTITION)
    assert "joint-units1-3-cached-prefix" not in programs_of(works[1], PARTITION)
