"""Parameters that ExecuTorch's stock TrainingModule trained, turned back into an update of a bundle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="programs are exported with it")
training = pytest.importorskip("executorch.extension.training", reason="the stock binding trains the program")
from safetensors.numpy import load_file, save_file

from device_profiles.update import UpdateMetadata
from edge_runtime.device.cli import main
from edge_runtime.device.prepare.bundle import open_bundle
from edge_runtime.device.prepare.laid_weights import LaidWeights
from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.export.targets.executorch import export_executorch
from edge_runtime.export.targets.native import export_bundle

OPTIONS: dict[str, Any] = {"width": 4, "batch": 4, "input_shape": (3, 16, 16), "seed": 3, "block": 2}
STEPS, EXAMPLES = 3, 12
METADATA = {"examples": "12", "steps": "3", "loss_first": "2.5", "loss_last": "2.25"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundle") / "cnn"
    export_bundle("cnn", output, verify=False, **OPTIONS)
    return output


def _imported(bundle: Path, parameters: Path, output: Path, *more: str) -> int:
    return main(
        ["import-executorch", str(bundle), "--block", "2", "--parameters", str(parameters), "-o", str(output), *more]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Parameters by name after some steps, and the losses, as an application has them."""
    folder = tmp_path_factory.mktemp("programs") / "cnn"
    export_executorch("cnn", folder, **OPTIONS)
    module = training._load_for_executorch_for_training(str(folder / "grow-block2.pte"))
    torch.manual_seed(4)
    losses, optimizer = [], None
    for _ in range(STEPS):
        (loss,) = module.forward_backward("forward", (torch.randn(4, 3, 16, 16), torch.randint(0, 10, (4,))))
        if optimizer is None:
            optimizer = training.get_sgd_optimizer(module.named_parameters(), 0.05, 0.9, 0, 5e-4, False)
        optimizer.step(module.named_gradients())
        losses.append(float(loss))
    return {"parameters": {n: p.clone().numpy() for n, p in module.named_parameters().items()}, "losses": losses}


def test_a_trained_block_comes_back_as_an_update_that_weights_take(
    bundle: Path, trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = trained["losses"][0], trained["losses"][-1]
    metadata = {**METADATA, "loss_first": str(first), "loss_last": str(last), "examples_done": "12"}
    save_file(trained["parameters"], tmp_path / "phone.safetensors", metadata)
    assert _imported(bundle, tmp_path / "phone.safetensors", tmp_path / "update.safetensors", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    update = TensorFile(tmp_path / "update.safetensors")  # its digest is checked
    read = UpdateMetadata.from_strings(update.metadata, "update")
    initial = open_bundle(bundle)
    assert read == UpdateMetadata(
        block=2,
        program="grow-block2",
        examples=EXAMPLES,
        steps=STEPS,
        base_version=LaidWeights(initial).version(),
        loss_first=first,
        loss_last=last,
        examples_done=12,
    )
    tensors, before = load_file(tmp_path / "update.safetensors"), load_file(initial.weights_path())
    for name, values in trained["parameters"].items():
        assert (tensors[name] == values).all() and not (before[name] == values).all(), name
    kept = set(tensors) - set(trained["parameters"])
    assert kept == set(report["kept_running_statistics"]) and {name.rpartition(".")[2] for name in kept} >= {
        "running_mean",
        "running_var",
    }
    assert all((tensors[name] == before[name]).all() for name in kept)
    program = initial.program_for("grow", 2)
    LaidWeights(initial, (tmp_path / "update.safetensors",)).check_whole([program], initial_allowed=True)


def test_what_is_no_block_of_parameters_is_refused_in_one_line(
    bundle: Path, trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = trained["parameters"]
    some = next(name for name in sorted(parameters) if parameters[name].ndim)
    broken = {some: parameters[some] * math.nan}
    cases: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({n: v for n, v in parameters.items() if n != some}, METADATA, f"tensor '{some}' is missing"),
        ({**parameters, "other": parameters[some]}, METADATA, "tensor 'other' is not one that grow-block2 trains"),
        ({**parameters, some: parameters[some].reshape(-1)[:1]}, METADATA, f"tensor '{some}' is float32 [1]"),
        ({**parameters, **broken}, METADATA, f"tensor '{some}' has a value that is not finite"),
        (parameters, {"examples": "12"}, "metadata: "),
        (parameters, {**METADATA, "steps": "0"}, "metadata: steps is below 1"),
        (parameters, {**METADATA, "loss_last": "nan"}, "metadata: loss_last is not finite"),
    ]
    for number, (tensors, metadata, line) in enumerate(cases):
        path = tmp_path / f"{number}.safetensors"
        save_file(tensors, path, metadata)
        assert _imported(bundle, path, tmp_path / "update.safetensors") == 2
        errors = capsys.readouterr().err
        assert line in errors and len(errors.splitlines()) == 1, errors
    assert not (tmp_path / "update.safetensors").exists()
