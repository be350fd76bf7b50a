"""A run on a federation goes on with other programs where a device has come, also when it is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="bundles are exported with torch")
pytest.importorskip("flwr", reason="the server app is Flower's")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from device_profiles.errors import ExecutionError
from server.engines.flower import devices as devices_module
from server.engines.flower import setup as flower_setup
from server.serving.serving import serve
from tests.support.fake_grid import FakeGrid, Node

FLEET = """
[model]
name = "cnn"
width = 16
batch = 256
partition = "0-0,1-2"

[data]
sources = ["digits"]
test_examples = 20

[method]
name = "planned"
freezing = "equal"

[training]
steps = 1
rounds = 2
join_seconds = 0
attempts = 1
"""
_MEGABYTE = 1 << 20


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGrid:
    """One device, which holds either unit 0 or those behind it; whoever else is there has come before a step ends."""
    made = FakeGrid(tmp_path / "nodes", {11: Node("large", budget_bytes=80 * _MEGABYTE, examples=300)})
    monkeypatch.setattr(devices_module, "LOOK_SECONDS", 0.0)
    known = flower_setup._Preparation._there

    def everybody(self: Any) -> Any:
        while len(self._devices.there()) < len(made.nodes):
            list(self._devices.look())
            if (arrived := self._inbox.next(0.1)) is not None:
                list(self._devices.take(*arrived))
        return known(self)

    monkeypatch.setattr(flower_setup._Preparation, "_there", everybody)
    return made


def test_a_device_that_comes_is_given_the_program_that_it_holds_from_the_next_step_on(
    grid: FakeGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    output = tmp_path / "run"
    config = {"fleet": str(tmp_path / "fleet.toml"), "run": str(output)}
    small = Node("small", budget_bytes=57 * _MEGABYTE, examples=300)

    def joins(order: Any, honest: Any) -> Any:
        grid.nodes[12] = small
        return honest

    def gone() -> list[int]:
        raise ExecutionError("the SuperLink does not answer")

    def leaves(order: Any, honest: Any) -> None:
        monkeypatch.setattr(grid, "get_node_ids", gone)

    grid.nodes[11].train = joins
    small.train = leaves  # in the first round of the second plan
    with pytest.raises(ExecutionError, match="the SuperLink does not answer"):
        serve(grid, config, 7)
    monkeypatch.setattr(grid, "get_node_ids", lambda: list(grid.nodes))
    state = json.loads((output / "state.json").read_text())
    assert (state["round"], state["plan"]) == (1, 1)
    assert (output / "weights" / "000001-1.safetensors").exists()
    small.train = grid.nodes[11].train = lambda order, honest: honest
    serve(grid, config | {"resume": True}, 8)
    first, second = (json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines())
    assert first["work"] == {"large": "grow-units0-0"}
    assert second["work"]["small"] == "joint-units2-2"
    assert {client["client"]: client["status"] for client in second["clients"]} == {"large": "ok", "small": "ok"}
    assert [(order.run, order.work) for order in small.orders][-1] == ("run-8", "joint-units2-2")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["planned_again"] == [
        "before round 2, behind 1 finished steps, planned again for 2 devices: the same steps, other programs"
    ]
    assert not (output / "plans" / "2").exists()
