"""A block has one promise on a device, whichever command shows it, measured there or predicted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edge_runtime.device.commands.inspect import inspect
from profiler.commands.predict import predict
from server.cli import cli

GOLDEN = Path(__file__).parents[2] / "golden"
BLOCKS = ["grow-block1", "grow-block2", "grow-block3"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of which no file but the manifest is read, and a profile in which one of its blocks is not measured."""
    folder = tmp_path_factory.mktemp("promise")
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    manifest["files"] = [file | {"size_bytes": 0} for file in manifest["files"]]
    bundle, profiles = folder / "bundle", folder / "profiles"
    for file in manifest["files"]:
        (bundle / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        (bundle / file["path"]).touch()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    profile = json.loads((GOLDEN / "profile.json").read_text())
    profile["bundle_sha256"] = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    del profile["costs"][2]
    profiles.mkdir()
    (profiles / "phone.json").write_text(json.dumps(profile))
    return bundle, profiles


def printed(command: click.Command, *arguments: object) -> str:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def shown(places: tuple[Path, Path]) -> Callable[..., list[str]]:
    bundle, profiles = places
    phone = profiles / "phone.json"
    commands = [
        (inspect, [bundle, "--profile", phone]),
        (predict, [bundle, "--profile", phone]),
        (cli, ["plan", "--bundle", bundle, "--profiles", profiles]),
    ]
    return lambda *more: [printed(command, *arguments, *more) for command, arguments in commands]


def test_all_commands_print_the_same_promise(shown: Callable[..., list[str]]) -> None:
    inspected, predicted, planned = shown()
    of_inspect = [re.search(rf"^{block} .* ([\d.]+) MB(, predicted)?$", inspected, re.M) for block in BLOCKS]
    of_predict = [re.search(rf"^{block} +\S+ MB +(\S+) MB .*$", predicted, re.M) for block in BLOCKS]
    of_plan = re.search(r"^\S+ +[\d.]+ +(\S+) +(\S+) +(\S+)$", planned, re.M)
    assert of_plan is not None
    promises = [found[1] for found in of_inspect if found]
    assert promises == [found[1] for found in of_predict if found] == list(of_plan.groups())
    assert [found[2] for found in of_inspect if found] == [None, None, ", predicted"]
    assert [bool(found) and found[0].endswith("measured") for found in of_predict] == [True, True, False]
    for text in (inspected, predicted, planned):
        assert "5% above what is needed" in text


def test_all_commands_report_the_same_promise(shown: Callable[..., list[str]]) -> None:
    documents: list[dict[str, Any]] = [json.loads(text) for text in shown("--json")]
    inspected, predicted, planned = documents
    of_inspect = {entry["program"]: entry.get("promise_bytes") for entry in inspected["programs"]}
    of_predict = {entry["program"]: entry["promise_bytes"] for entry in predicted["predictions"]}
    of_plan = [step["clients"][0]["predicted_peak_bytes"] for step in planned["steps"]]
    assert [of_inspect[block] for block in BLOCKS] == [of_predict[block] for block in BLOCKS] == of_plan
    assert inspected["promise_margin"] == predicted["promise_margin"] == planned["margin"] == 0.05
    assert of_inspect["eval-block1"] is None


def test_other_threads_have_a_promise_of_their_own(places: tuple[Path, Path]) -> None:
    bundle, profiles = places
    options = [bundle, "--profile", profiles / "phone.json", "--json", "--threads"]
    one, two = (json.loads(printed(predict, *options, threads))["predictions"][0] for threads in (1, 2))
    assert one["measured"] and not two["measured"]
    assert two["promise_bytes"] >= two["high_bytes"]
