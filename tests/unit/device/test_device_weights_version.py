"""A version of weights follows from their tensors alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from edge_runtime.device.prepare.tensors import TensorFile
from edge_runtime.device.prepare.weights_version import weights_version

_A = np.arange(6, dtype=np.float32)
_B = np.ones((2, 2), np.float32)


def _file(path: Path, **tensors: np.ndarray) -> TensorFile:
    save_file(tensors, path, metadata={"written": path.name})
    return TensorFile(path)


def test_weights_in_one_file_and_in_several_have_the_same_version(tmp_path: Path) -> None:
    whole = weights_version([_file(tmp_path / "whole", a=_A, b=_B)])
    parts = weights_version([_file(tmp_path / "first", a=_A * 0, b=_B), _file(tmp_path / "second", a=_A)])
    assert whole == parts
    assert len(whole) == 16


def test_another_value_name_or_shape_is_another_version(tmp_path: Path) -> None:
    changed = _A.copy()
    changed[-1] += 1
    versions = {
        weights_version([_file(tmp_path / "one", a=_A)]),
        weights_version([_file(tmp_path / "two", a=changed)]),
        weights_version([_file(tmp_path / "three", b=_A)]),
        weights_version([_file(tmp_path / "four", a=_A.reshape(2, 3))]),
    }
    assert len(versions) == 4


def test_the_order_of_layers_decides(tmp_path: Path) -> None:
    first, second = _file(tmp_path / "first", a=_A), _file(tmp_path / "second", a=_A + 1)
    assert weights_version([first, second]) == weights_version([second])
    assert weights_version([first, second]) != weights_version([second, first])
