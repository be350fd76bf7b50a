"""What travels to a device for a piece of work, on the engine `flower`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the engine speaks through Flower")

from safetensors.numpy import load, load_file, save_file

from device_profiles.work import grow
from edge_runtime.device.prepare.bundle import open_bundle
from edge_runtime.device.prepare.laid_weights import LaidWeights
from server.engines.flower.parcels import Parcels
from server.fleet.structure import Structure
from tests.support.fake_grid import golden_bundle
from tests.support.fake_run import MANIFEST

WORK = grow(MANIFEST.partition, 1)


def test_a_parcel_is_a_bundle_of_the_programs_that_the_work_takes(tmp_path: Path) -> None:
    bundle = golden_bundle(tmp_path / "bundle")
    parcels = Parcels(bundle)
    weights = tmp_path / "other.safetensors"
    tensors = load_file(bundle.weights_path())
    save_file({name: np.asarray(tensor + 1) for name, tensor in tensors.items()}, weights)
    last = grow(MANIFEST.partition, len(MANIFEST.partition.blocks))
    parcel = parcels.of(last, weights)
    folder = tmp_path / "device"
    for name, array in parcel.record.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(array.data)
    received = open_bundle(folder / "bundle")
    assert [program.work for program in received.manifest.programs] == [last]
    program = received.training_program(last)
    received.program_path(program)
    laid = LaidWeights(received, [folder / name for name in parcel.weights])
    laid.check_whole([program])
    for value in program.inputs:
        if value.role == "frozen":
            laid.place(value.name, value.dtype, value.shape)


def test_what_devices_share_is_sent_as_one_object_and_frozen_units_stay_the_same(tmp_path: Path) -> None:
    bundle = golden_bundle(tmp_path / "bundle")
    parcels = Parcels(bundle)
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    tensors = {name: np.asarray(tensor + 1) for name, tensor in load_file(bundle.weights_path()).items()}
    save_file(tensors, first)
    trained = Structure.of(MANIFEST).tensors(grow(MANIFEST.partition, 2))
    changed = {name: np.asarray(tensor + 1) for name, tensor in tensors.items() if name in trained}
    save_file(tensors | changed, second)
    work = grow(MANIFEST.partition, 2)
    a = parcels.of(work, first)
    assert parcels.of(work, first).record is a.record
    b = parcels.of(work, second)
    same = {name for name in a.files if a.record[name] is b.record[name]}
    assert {name for name in a.files if name.startswith("bundle/")} <= same
    frozen = {name for name in a.weights if not set(load(a.record[name].data)) & set(trained)}
    assert frozen and frozen <= same and set(a.weights) - same


def test_the_bundles_own_weights_are_not_sent_twice(tmp_path: Path) -> None:
    bundle = golden_bundle(tmp_path / "bundle")
    parcels = Parcels(bundle)
    parcel = parcels.of(WORK, bundle.weights_path())
    assert parcel.weights == () and all(name.startswith("bundle/") for name in parcel.files)


def test_what_is_measured_is_every_training_program_with_its_weights(tmp_path: Path) -> None:
    parcel = Parcels(golden_bundle(tmp_path / "bundle")).whole()
    folder = tmp_path / "device"
    for name, array in parcel.record.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(array.data)
    received = open_bundle(folder / "bundle")
    trained = {program.work for program in MANIFEST.programs if program.work.trains}
    assert trained <= {program.work for program in received.manifest.programs}
    assert LaidWeights(received).names()
