"""Where a package is missing, the error names the packages, and no index on which this release is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from device_profiles.extras import extra_remedy

ROOT = Path(__file__).resolve().parents[3]
REQUIRES = [
    "click>=8.1",
    'torch==2.13.0; extra == "export"',
    'numpy>=2; extra == "export"',
    'profl-edge[export]; extra == "server"',
    'sqlalchemy<3,>=2; extra == "server"',
    'cryptography>=42; extra == "join"',
    'profl-edge[join,server]; extra == "federation"',
    'numpy>=2 ; extra == "federation"',
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Packages that are installed besides this release, with their versions; none at first."""
    there: dict[str, str] = {}
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(metadata, "version", lambda name: _version(there, name))
    return there


def _version(there: Mapping[str, str], name: str) -> str:
    if name not in there:
        raise metadata.PackageNotFoundError(name)
    return there[name]


def test_an_extra_is_spelled_out_with_those_that_it_includes(installed: dict[str, str]) -> None:
    del installed
    assert extra_remedy("join") == "install profl-edge's extra 'join': pip install 'cryptography>=42'"
    packages = "'cryptography>=42' torch==2.13.0 'numpy>=2' 'sqlalchemy<3,>=2'"
    assert extra_remedy("federation") == f"install profl-edge's extra 'federation': pip install {packages}"


def test_only_what_is_missing_is_named(installed: dict[str, str]) -> None:
    installed["torch"] = "2.13.0"
    installed["numpy"] = "2.1"
    assert extra_remedy("server").endswith(": pip install 'sqlalchemy<3,>=2'")


def test_all_are_named_where_one_is_there_and_cannot_be_imported(installed: dict[str, str]) -> None:
    installed["cryptography"] = "42"
    assert extra_remedy("join").endswith(": pip install 'cryptography>=42'")


def test_sources_that_are_not_installed_still_have_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert extra_remedy("join") == "install the packages of profl-edge's extra 'join'"


def test_no_message_sends_anyone_to_an_index_without_this_release() -> None:
    places = ("device_profiles", "edge_runtime", "profiler", "server")
    sources = [path for place in places for path in (ROOT / place).rglob("*.py")]
    wrong = [path for path in sources if "profl-edge[" in path.read_text(encoding="utf-8")]
    assert [path.name for path in wrong] == []


def test_a_light_process_pays_nothing_for_it() -> None:
    asked = "import sys, device_profiles.extras; print({'importlib.metadata', 'shlex', 'email'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
