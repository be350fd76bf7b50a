"""What tests of the Fleet API client share: a key, certificates, a SuperLink of their own and a link to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.device.fleet_api import patience
from edge_runtime.device.fleet_api.keys import NodeKey
from edge_runtime.device.fleet_api.link import Link
from tests.support.fake_superlink import FakeSuperLink, serve


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> NodeKey:
    return NodeKey.create(tmp_path_factory.mktemp("key") / "key")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.superlink import write_certificates

    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSuperLink:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.02)
    return FakeSuperLink()


@pytest.fixture
def link(fake: FakeSuperLink, key: NodeKey) -> Iterator[Link]:
    with serve(fake) as address, Link(address, ca=None, key=key, insecure=True, timeout=10) as link:
        link.activate()
        yield link
