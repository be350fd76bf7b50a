"""The same figures for PyTorch eager. What needs a GPU says so."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("the PyTorch meter needs torch: pip install torch==2.13.0", allow_module_level=True)

import torch
from torch.nn import functional

from device_profiles.files import read_json
from device_profiles.profile import DeviceProfile
from edge_runtime.export import models
from profiler.torch.meter import ModelChoice, programs_of
from profiler.torch.plan import plan_model
from profiler.torch.spec import StepSpec, step_spec
from profiler.torch.step import BlockStep, bytes_of

ROOT = Path(__file__).parents[2]
MODELS = ["cnn", "resnet18", "vgg11_bn"]
# A profiler where only torch is installed beside this package.
_ONLY_TORCH = """
import sys
for name in ("executorch", "onnx", "flwr", "torchvision"):
    sys.modules[name] = None
import runpy
sys.argv = ["profl-profile", *sys.argv[1:]]
runpy.run_module("profiler", run_name="__main__")
"""


def _spec(model: str, block: int, *, batch: int = 4, device: str = "cpu") -> StepSpec:
    choice = ModelChoice(model=model, width=8, classes=10, input_shape=(3, 32, 32))
    plan = plan_model(choice)
    return step_spec(
        plan.model,
        plan.partition,
        program=f"grow-block{block}",
        block=block,
        batch=batch,
        device=device,  # type: ignore[arg-type]  # one of the two
        threads=1,
        steps=1,
        warmup_steps=0,
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_last_block_behind_its_prefix_is_the_whole_model(model: str) -> None:
    spec = _spec(model, 3 if model == "cnn" else 4)
    module = models.create(model, width=8).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = module(images)
        step = BlockStep(spec, module)
        got = step.head.eval()(step.active.eval()(step.prefix(images)))
    torch.testing.assert_close(got, expected)
    assert not spec.stand_ins


@pytest.mark.parametrize(("model", "block"), [("cnn", 1), ("resnet18", 2), ("vgg11_bn", 3)])
def test_a_step_moves_the_block_and_leaves_the_prefix(model: str, block: int) -> None:
    step = BlockStep(_spec(model, block), models.create(model, width=8))
    before = [p.detach().clone() for p in step.parameters]
    frozen = [p.detach().clone() for p in [*step.prefix.parameters(), *step.prefix.buffers()]]
    losses = []
    for _ in range(4):
        with torch.no_grad():
            x = step.active(step.prefix(step.images))
            for stand_in in step.stand_ins:
                x = stand_in(x)
            losses.append(float(functional.cross_entropy(step.head(x), step.labels)))
        step.run()
    assert losses[-1] < losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True))
    after = [*step.prefix.parameters(), *step.prefix.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))


def test_what_is_counted_is_what_there_is() -> None:
    step = BlockStep(_spec("cnn", 2), models.create("cnn", width=8))
    activations = step.count_saved()
    step.run()
    counted = step.counted(activations)
    trained = sum(p.numel() * 4 for p in step.parameters)
    assert counted["gradients_bytes"] == counted["optimizer_state_bytes"] == trained
    assert counted["staging_bytes"] == 4 * 3 * 32 * 32 * 4 + 4 * 8
    assert counted["frozen_bytes"] == bytes_of([*step.prefix.parameters(), *step.prefix.buffers()]) > 0
    with torch.no_grad():
        features = step.prefix(step.images)
    # At least the block's input is saved, and twice the batch needs about twice the bytes.
    assert activations > features.numel() * 4
    twice = BlockStep(_spec("cnn", 2, batch=8), models.create("cnn", width=8)).count_saved()
    assert 1.9 * activations < twice < 2.1 * activations


def _profile(*arguments: object, code: str | None = None) -> tuple[int, dict[str, Any], str]:
    start = ["-c", code] if code is not None else ["-m", "profiler"]
    command = [sys.executable, *start, *map(str, arguments), "--runtime", "torch", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_a_model_is_profiled_where_only_torch_is_installed(tmp_path: Path) -> None:
    output = tmp_path / "torch.json"
    options = ["--model", "cnn", "--width", 8, "--batch", 8, "--block", 2, "--steps", 2, "--threads", 1, "-o", output]
    status, profile, errors = _profile(*options, code=_ONLY_TORCH)
    assert status == 0, errors
    assert json.loads(output.read_bytes()) == profile and profile["runtime"] == "torch"
    read_json(output, DeviceProfile)
    (cost,) = profile["costs"]
    assert cost["fits"] and cost["measured_peak_bytes"] > cost["base_bytes"] > 50 << 20
    assert cost["activations_bytes"] > 0 and cost["gradients_bytes"] > 0 and cost["optimizer_state_bytes"] > 0
    assert cost["step_seconds_median"] > 0 and cost["minor_faults"] > 0
    assert "timeline" not in cost and "plan" not in cost


def test_a_bundle_is_profiled_with_pytorch(cnn_bundle: Path, tmp_path: Path) -> None:
    status, profile, errors = _profile(
        cnn_bundle, "--block", 1, "--steps", 1, "--threads", 1, "-o", tmp_path / "p.json"
    )
    assert status == 0, errors
    assert [cost["batch"] for cost in profile["costs"]] == [8]


def test_a_limit_that_torch_cannot_live_in_is_a_result(cnn_bundle: Path, tmp_path: Path) -> None:
    options = [cnn_bundle, "--block", 1, "--limit", "40MB", "--steps", 1, "-o", tmp_path / "p.json"]
    status, profile, errors = _profile(*options)
    assert status == 0, errors
    (cost,) = profile["costs"]
    assert not cost["fits"] and cost["reason"].startswith("does not fit") and cost["base_bytes"] > 50 << 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "cnn", "--input", "32"], "--input"),
        (["bundle", "--model", "cnn"], "--model"),
        ([], "BUNDLE"),
    ],
)
def test_a_users_mistake_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    status, profile, errors = _profile(*arguments, "-o", tmp_path / "p.json")
    assert status == 2 and profile == {}
    assert len(errors.splitlines()) == 1 and said in errors


def test_the_gpu_is_measured_with_allocator_and_driver(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("measuring on CUDA needs an NVIDIA GPU and its driver")
    options = ["--model", "resnet18", "--width", 16, "--batch", 16, "--block", 1, "--device", "cuda"]
    status, profile, errors = _profile(*options, "-o", tmp_path / "gpu.json")
    assert status == 0, errors
    (cost,) = profile["costs"]
    assert 0 < cost["accelerator_allocated_bytes"] <= cost["accelerator_reserved_bytes"] <= cost["measured_peak_bytes"]
    assert cost["host_peak_bytes"] > 0 and profile["device"]["gpus"]


def test_programs_without_a_bundle_are_one_a_block() -> None:
    plan = plan_model(ModelChoice(model="cnn", width=8, classes=10, input_shape=(3, 32, 32), blocks=2))
    assert [(program.name, program.batch) for program in programs_of(plan.partition, 6)] == [
        ("grow-block1", 6),
        ("grow-block2", 6),
    ]
