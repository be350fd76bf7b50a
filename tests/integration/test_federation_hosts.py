"""A federation on hosts that share nothing but a network, one of which is cut off for a while."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="bundles are exported with torch")
pytest.importorskip("flwr", reason="the federation runs on Flower")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from tests.support.loopback import Loopback
from tests.support.namespaces import SERVER_ADDRESS, Hosts, hosts, may_make_hosts

if not may_make_hosts():
    pytest.skip("needs the right to make network namespaces, which root has", allow_module_level=True)

FLEET = """
[model]
name = "cnn"
width = 8
batch = 32
partition = "0-1,2-2"

[data]
sources = ["digits"]
test_examples = 50

[method]
freezing = "equal"

[training]
steps = 2
learning_rate = 0.05
rounds = 400
min_clients = 1
attempts = 1000
deadline_seconds = 5
join_seconds = 0
"""


@pytest.fixture
def network() -> Iterator[Hosts]:
    with hosts("near", "far") as made:
        yield made


def test_one_that_is_cut_off_misses_rounds_and_comes_back(
    network: Hosts, tmp_path_factory: pytest.TempPathFactory
) -> None:
    inside = {name: network.inside(name) for name in ("server", "near", "far")}
    limits = {"near": 112, "far": 112}
    federation = Loopback(tmp_path_factory.mktemp("hosts"), FLEET, limits, inside=inside, measured=True)
    try:
        federation.up("--host", SERVER_ADDRESS)
        running = federation.begin("run")

        def delivered(first: int) -> list[set[str]]:
            """Who delivered in each of the rounds from `first` on."""
            records = federation.rounds("run")[first:]
            return [{c["client"] for c in record["clients"] if c["status"] == "ok"} for record in records]

        try:
            federation.wait(running, lambda: {"near", "far"} in delivered(0))
            network.set_cable("far", "down")
            cut = len(delivered(0)) + 1  # one may have been nearly done
            federation.wait(running, lambda: {"near"} in delivered(cut))
            network.set_cable("far", "up")
            mended = len(delivered(0))
            federation.wait(running, lambda: {"near", "far"} in delivered(mended))
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=60)
    finally:
        federation.down()
