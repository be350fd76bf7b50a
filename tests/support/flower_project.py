"""The `pyproject.toml` of a small app for Flower, as tests and benches make one."""

from __future__ import annotations

import json
from collections.abc import Mapping


def flower_project(name: str, *, server: str, client: str, config: Mapping[str, object]) -> str:
    """Of an app whose components are the objects `server` and `client` (`module:name`); `config` holds the keys of its
    run config, with their defaults."""
    keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.items())
    return f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "1.0.0"
description = "made for a test"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.41.0"]
[tool.flwr.app]
publisher = "test"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"
[tool.flwr.app.config]
{keys}
"""
