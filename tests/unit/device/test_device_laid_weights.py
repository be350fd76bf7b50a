"""Weights laid over each other: which file a tensor comes from, what must be there, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from device_profiles.errors import FormatError, UsageError
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.laid_weights import LaidWeights
from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.device.prepare.weights_version import weights_version
from tests.support.paper_bundle import paper_bundle, tensors_of

Tensors = dict[str, np.ndarray]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return paper_bundle(tmp_path / "bundle", blocks=3)


@pytest.fixture
def trained(bundle: Bundle, tmp_path: Path) -> list[Path]:
    """Updates of blocks 1, 2 and 3, in order; the n-th is filled with n."""
    paths = []
    for block in (1, 2, 3):
        path = tmp_path / f"u{block}.safetensors"
        names = tensors_of(bundle, f"grow-block{block}", "parameter")
        save_file({name: np.full(shape, block, np.float32) for name, shape in names.items()}, path)
        paths.append(path)
    return paths


def _whole(bundle: Bundle) -> Tensors:
    return load_file(bundle.weights_path())


def _refusal(bundle: Bundle, path: Path, tensors: Tensors) -> str:
    save_file(tensors, path)
    with pytest.raises(FormatError) as caught:
        LaidWeights(bundle, [path])
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_later_file_wins_and_the_rest_is_the_bundles_own(bundle: Bundle, trained: list[Path]) -> None:
    laid = LaidWeights(bundle, [trained[0], trained[1]])
    assert laid.holder("block1.weight").path == trained[0]
    assert laid.holder("block2.weight").path == laid.holder("head.weight").path == trained[1]
    assert laid.holder("output_module.block2.weight").path == trained[0]
    assert laid.is_initial("block3.weight") and not laid.is_initial("block2.weight")
    turned = LaidWeights(bundle, [trained[1], trained[0]])
    assert turned.holder("head.weight").path == trained[0]


def test_the_version_is_that_of_the_layers_in_order(bundle: Bundle, trained: list[Path], tmp_path: Path) -> None:
    laid = LaidWeights(bundle, trained[:2])
    assert laid.version() == weights_version([TensorFile(bundle.weights_path()), *map(TensorFile, trained[:2])])
    merged = _whole(bundle) | load_file(trained[0]) | load_file(trained[1])
    save_file(merged, tmp_path / "merged.safetensors")
    assert LaidWeights(bundle, [tmp_path / "merged.safetensors"]).version() == laid.version()
    assert len({laid.version(), LaidWeights(bundle).version(), LaidWeights(bundle, trained[1::-1]).version()}) == 3


@pytest.mark.parametrize(
    ("program", "files", "missing"),
    [
        ("grow-block2", (0,), None),
        ("grow-block3", (0, 1), None),
        ("grow-block1", (1,), None),  # what is trained may start from the bundle's initial values
        ("joint-blocks2-3", (0,), None),
        ("eval-block1", (0,), None),
        ("eval-block3", (0, 1, 2), None),
        ("distill-block3", (0, 1, 2), None),
        ("grow-block3", (1,), "reads block 1, and no file holds it"),
        ("grow-block3", (2,), "reads blocks 1 and 2, and no file holds them"),
        ("features-block3", (1,), "reads block 1,"),
        ("eval-block3", (1,), "reads blocks 1 and 3,"),
        ("eval-block1", (2,), "reads block 1 and the stand-ins of blocks 2 and 3, and no file holds them"),
        ("distill-block2", (0,), "reads block 2,"),
        ("joint-blocks2-3", (1, 2), "reads block 1,"),
    ],
)
def test_what_is_read_and_not_trained_must_be_there(
    bundle: Bundle, trained: list[Path], program: str, files: tuple[int, ...], missing: str | None
) -> None:
    laid = LaidWeights(bundle, [trained[index] for index in files])
    chosen = [bundle.manifest.program(program)]
    laid.check_whole(chosen, initial_allowed=True)
    LaidWeights(bundle).check_whole(chosen)
    if missing is None:
        laid.check_whole(chosen)
        assert laid.initial_blocks(chosen) == []
        return
    with pytest.raises(UsageError) as caught:
        laid.check_whole(chosen)
    assert f"{program} {missing}" in str(caught.value)
    assert f"--weights {trained[files[0]]}" in str(caught.value) and "--initial-prefix" in str(caught.value)


def test_frozen_blocks_that_are_the_bundles_own_are_told(bundle: Bundle, trained: list[Path]) -> None:
    program = bundle.manifest.program("grow-block3")
    assert LaidWeights(bundle).initial_blocks([program]) == [1, 2]
    assert LaidWeights(bundle, [trained[1]]).initial_blocks([program]) == [1]


def test_the_start_of_a_proximal_term_is_no_frozen_block(tmp_path: Path) -> None:
    bundle = paper_bundle(tmp_path / "bundle", blocks=3, proximal=True)
    path = tmp_path / "u1.safetensors"
    names = tensors_of(bundle, "grow-block1", "parameter")
    save_file({name: np.ones(shape, np.float32) for name, shape in names.items()}, path)
    LaidWeights(bundle, [path]).check_whole([bundle.manifest.program("grow-block2")])


def test_a_block_that_is_there_in_part_is_refused_even_where_initial_ones_are_allowed(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "part.safetensors"
    save_file({name: value for name, value in _whole(bundle).items() if name != "block2.bias"}, path)
    for program in ("grow-block2", "grow-block3", "eval-block3"):
        with pytest.raises(FormatError, match=r"part.safetensors: block 2 is incomplete: .*'block2.bias' is not"):
            LaidWeights(bundle, [path]).check_whole([bundle.manifest.program(program)], initial_allowed=True)
    LaidWeights(bundle, [path]).check_whole([bundle.manifest.program("eval-block1")])


def test_a_tensor_of_a_trained_block_that_nobody_trains_may_stay_the_bundles_own(tmp_path: Path) -> None:
    bundle = paper_bundle(tmp_path / "bundle", blocks=2, fixed=True)
    path = tmp_path / "u1.safetensors"
    names = tensors_of(bundle, "grow-block1", "parameter")
    assert "block1.fixed" not in names
    save_file({name: np.ones(shape, np.float32) for name, shape in names.items()}, path)
    LaidWeights(bundle, [path]).check_whole([bundle.manifest.program("grow-block2")])
    assert LaidWeights(bundle, [path]).initial_blocks([bundle.manifest.program("grow-block2")]) == []


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "net.encoder."])
def test_names_with_a_prefix_are_refused_with_the_line_that_removes_it(
    bundle: Bundle, tmp_path: Path, prefix: str
) -> None:
    tensors = {prefix + name: value for name, value in _whole(bundle).items()}
    line = _refusal(bundle, tmp_path / "my weights.safetensors", tensors)
    assert f"its names begin with '{prefix}'" in line
    _run_remedy(line)
    _same(bundle, tmp_path / "my weights-renamed.safetensors")


def test_names_where_only_some_have_a_prefix_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    tensors = {("model." * name.startswith("block1")) + name: value for name, value in _whole(bundle).items()}
    assert "its names begin with 'model.'" in _refusal(bundle, tmp_path / "some.safetensors", tensors)


def _same(bundle: Bundle, path: Path) -> None:
    """The file at `path` holds all of the bundle's own weights."""
    laid = LaidWeights(bundle, [path])
    assert not any(laid.is_initial(name) for name in laid.names())
    assert laid.version() == LaidWeights(bundle).version()


def _run_remedy(line: str) -> None:
    """The command at the end of a refusal: a shell takes it apart, and this interpreter, which has PyTorch, runs it."""
    _, found, command = line.rpartition("with: python ")
    assert found
    words = subprocess.run(["/bin/bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
    option, code, *arguments = words.stdout.split("\0")[:-1]
    assert option == "-c"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [option, *arguments])
        exec(code, {"__name__": "__main__"})


def test_names_that_lack_the_models_prefix_are_refused_with_the_line_that_adds_it(tmp_path: Path) -> None:
    bundle = paper_bundle(tmp_path / "bundle", blocks=2, prefix="model.", stand_ins=False)
    tensors = {name.removeprefix("model."): value for name, value in _whole(bundle).items()}
    line = _refusal(bundle, tmp_path / "bare.safetensors", tensors)
    assert "its names lack the 'model.'" in line
    _run_remedy(line)
    _same(bundle, tmp_path / "bare-renamed.safetensors")


def test_other_weights_are_refused_by_their_first_name(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    other = _refusal(bundle, path, {"conv1.weight": np.zeros(3, np.float32)})
    assert "contains no tensor of the model (it has 'conv1.weight', the model 'block1.bias')" in other
    assert "contains no tensors" in _refusal(bundle, path, {})
    extra = _whole(bundle) | {"auxiliary.weight": np.zeros(3, np.float32)}
    assert "tensor 'auxiliary.weight' is not a tensor of the model" in _refusal(bundle, path, extra)
    stand_in = _whole(bundle) | {"output_module.block9.weight": np.zeros(3, np.float32)}
    assert "'output_module.block9.weight' is of a bundle with other blocks" in _refusal(bundle, path, stand_in)


def test_another_shape_is_refused_also_where_the_program_does_not_read_it(bundle: Bundle, tmp_path: Path) -> None:
    tensors = _whole(bundle) | {"block3.weight": np.zeros((2, 5), np.float32)}
    line = _refusal(bundle, tmp_path / "w.safetensors", tensors)
    assert "tensor 'block3.weight' is float32 [2, 5], expected float32 [2, 3]" in line


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16", "float8_e4m3fn"])
def test_other_floating_types_are_refused_with_the_line_that_converts_them(
    bundle: Bundle, tmp_path: Path, dtype: str
) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "half.safetensors"
    save_torch({n: torch.from_numpy(v).to(getattr(torch, dtype)) for n, v in _whole(bundle).items()}, path)
    with pytest.raises(FormatError) as caught:
        LaidWeights(bundle, [path])
    assert f"is {dtype.partition('_')[0]}; weights are float32" in str(caught.value)
    _run_remedy(str(caught.value))
    _same(bundle, tmp_path / "half-float32.safetensors")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_save_is_refused_with_the_line_that_converts_it(
    bundle: Bundle, tmp_path: Path, wrapped: bool, zipped: bool
) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value).half() for name, value in _whole(bundle).items()}
    path = tmp_path / "it's.pt"
    torch.save({"state_dict": state} if wrapped else state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError) as caught:
        LaidWeights(bundle, [path])
    assert "is a file of torch.save (a pickle)" in str(caught.value)
    _run_remedy(str(caught.value))
    _same(bundle, tmp_path / "it's.safetensors")


def test_an_archive_of_numpy_is_refused_with_the_line_that_converts_it(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **_whole(bundle))
    with pytest.raises(FormatError) as caught:
        LaidWeights(bundle, [tmp_path / "w.npz"])
    assert "is a NumPy archive" in str(caught.value)
    _run_remedy(str(caught.value))
    _same(bundle, tmp_path / "w.safetensors")


def test_a_checkpoint_is_no_weights(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "u.safetensors.checkpoint"
    save_file(_whole(bundle), path, metadata={"profl_checkpoint": "{}"})
    with pytest.raises(FormatError, match="is the checkpoint of a training; finish that training with --resume"):
        LaidWeights(bundle, [path])
