"""The run config of a federation's runs: what is submitted is what the app declares."""

from __future__ import annotations

import tomllib

import pytest

pytest.importorskip("flwr", reason="a federation runs on Flower")

from server.federation.submit import APP, CONFIG


def test_the_app_declares_every_key_that_a_run_is_submitted_with() -> None:
    """Flower refuses a run whose config has a key that the app does not declare."""
    declared = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert declared == CONFIG
