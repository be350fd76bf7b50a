"""`profl-profile` over the real runtime: real processes, real limits, real kills."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from device_profiles.promise import PREPARING_BYTES
from edge_runtime.device.limits.endings import Ending, Endings
from edge_runtime.device.limits.processes import run_limited
from edge_runtime.device.prepare.bundle import open_bundle
from profiler.measure.base import base_bytes

ROOT = Path(__file__).parents[2]


def _profile(*arguments: object) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "profiler", *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_every_program_is_promised_and_measured(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "profile.json"
    status, profile, errors = _profile(cnn_bundle, "--purpose", "all", "--steps", 2, "--threads", 1, "-o", output)
    assert status == 0, errors
    assert json.loads(output.read_bytes()) == profile
    names = {cost["program"] for cost in profile["costs"]}
    steps = {f"{purpose}-block{block}" for purpose in ("grow", "eval") for block in (1, 2, 3)}
    behind = {f"{purpose}-block{block}" for purpose in ("grow", "distill") for block in (2, 3)}
    assert names == steps | behind | {f"{name}-cached-prefix" for name in behind}
    for cost in profile["costs"]:
        assert cost["fits"]
        # A program of a few hundred kilobytes never needs what starting the process did.
        assert -(3 << 20) < cost["unexplained_bytes"] < 3 << 20, cost
        assert (cost.get("step_seconds_median") is not None) == (cost["work"]["kind"] != "eval")


def test_purposes_add_up_and_programs_over_a_cache_can_be_left_out(cnn_bundle: Path, tmp_path: Path) -> None:
    options = ("--purpose", "grow", "--purpose", "distill", "--no-cached-prefix", "--block", 2, "--steps", 1)
    status, profile, errors = _profile(cnn_bundle, *options, "-o", tmp_path / "profile.json")
    assert status == 0, errors
    assert [cost["program"] for cost in profile["costs"]] == ["grow-block2", "distill-block2"]


def test_a_limit_that_kills_is_a_result(cnn_bundle: Path, tmp_path: Path) -> None:
    # Less than a bare Python process holds: no program can live in it.
    output = tmp_path / "profile.json"
    status, profile, errors = _profile(
        cnn_bundle, "--block", 1, "--limit", "2MB", "--steps", 1, "--threads", 1, "-o", output
    )
    assert status == 0, errors
    (cost,) = profile["costs"]
    assert not cost["fits"] and cost["measured_peak_bytes"] is None
    assert cost["reason"].startswith("does not fit")
    assert cost["base_bytes"] > 2 << 20
    assert profile["device"]["limit_bytes"] == 2 << 20
    assert profile["device"]["limit_kind"] == run_limited(["true"], limit_bytes=64 << 20).limit_kind


def test_the_base_of_what_did_not_live_is_that_of_what_does(cnn_bundle: Path, tmp_path: Path) -> None:
    status, profile, errors = _profile(cnn_bundle, "--block", 1, "--steps", 1, "-o", tmp_path / "profile.json")
    assert status == 0, errors
    bundle = open_bundle(cnn_bundle)
    measured = base_bytes(bundle, bundle.program_for("grow", 1))
    assert abs(measured - profile["costs"][0]["base_bytes"]) < 1 << 20


def test_a_damaged_bundle_is_an_error_and_leaves_no_profile(cnn_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(cnn_bundle, bundle)
    program = bundle / "programs" / "grow-block1.pte"
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1
    program.write_bytes(content)
    status, profile, errors = _profile(bundle, "--block", 1, "--limit", "512MB", "-o", tmp_path / "profile.json")
    assert status == 2 and profile == {}
    assert "SHA-256" in errors.splitlines()[-1]
    assert not (tmp_path / "profile.json").exists()


def test_a_profile_of_one_block_predicts_the_others(cnn_bundle: Path, tmp_path: Path) -> None:
    one, every = tmp_path / "one.json", tmp_path / "every.json"
    for options in ((["--block", 1, "-o", one]), ["-o", every]):
        status, _, errors = _profile(cnn_bundle, "--steps", 1, "--threads", 1, *options)
        assert status == 0, errors
    command = [sys.executable, "-m", "profiler", "predict", str(cnn_bundle), "--profile", str(one), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    predicted = {p["program"]: p for p in json.loads(done.stdout)["predictions"]}
    measured = [c for c in json.loads(every.read_bytes())["costs"] if c.get("variant", "default") == "default"]
    assert len(measured) == 3
    for cost in measured:
        found = predicted[cost["program"]]
        assert found["calibrated_by"] == ["grow-block1"]
        assert found["low_bytes"] <= cost["measured_peak_bytes"] <= found["high_bytes"]
        assert abs(found["peak_bytes"] - cost["measured_peak_bytes"]) < 2 << 20


def test_the_profiler_and_what_it_measures_live_one_after_the_other_in_one_limit(
    cnn_bundle: Path, tmp_path: Path
) -> None:
    output, folder = tmp_path / "profile.json", tmp_path / "endings"
    endings = Endings(folder)
    endings.clear()
    limit = PREPARING_BYTES  # the least that a client of a federation has for them
    command = [sys.executable, "-m", "profiler", str(cnn_bundle), "--purpose", "all", "--block", "2", "--threads", "1"]
    command += ["--steps", "2", "--limit", f"{limit}B", "-o", str(output), "--endings", str(folder), "--json"]
    names: list[str] = []
    while True:
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            outcome = run_limited(command, limit_bytes=limit, stdout=out, stderr=err)
        said, complaint = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
        asked = endings.asked()
        if asked is None:
            break
        names.append(asked)
        kept = {name: getattr(outcome, name) for name in ("returncode", "limit_kind", "oom_kills", "cgroup_peak_bytes")}
        endings.keep(asked, Ending(**kept, output=said, complaint=complaint))
    assert outcome.returncode == 0, complaint
    assert len(names) == len(set(names)) and {"grow-block2.train", "grow-block2.bench", "eval-block2.eval"} <= set(
        names
    )
    alone, _, errors = _profile(
        cnn_bundle, "--purpose", "all", "--block", 2, "--threads", 1, "--steps", 2, "-o", tmp_path / "alone.json"
    )
    assert alone == 0, errors
    theirs = {cost["program"]: cost for cost in json.loads((tmp_path / "alone.json").read_bytes())["costs"]}
    ours = {cost["program"]: cost for cost in json.loads(output.read_bytes())["costs"]}
    assert ours.keys() == theirs.keys()
    for name, cost in ours.items():
        assert cost["fits"] and abs(cost["measured_peak_bytes"] - theirs[name]["measured_peak_bytes"]) < 2 << 20
        assert ("step_seconds_median" in cost) == ("step_seconds_median" in theirs[name])
