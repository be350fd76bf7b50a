"""One run from its fleet file to the trained model; every stage is kept on disk, so that a run can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from safetensors.numpy import load_file, save_file

from device_profiles.bundle import Manifest
from device_profiles.errors import ExecutionError, UsageError
from device_profiles.files import atomic_file, read_json, write_json
from device_profiles.plan import Plan
from device_profiles.profile import DeviceProfile
from edge_runtime.device.bundle import Bundle, open_bundle
from edge_runtime.device.lock import exclusive
from server.data_split import choose_source, write_parts
from server.engines.local import LocalEngine
from server.fleet import Fleet
from server.planner import make_plan
from server.run_state import RunFolder, Weights
from server.schedule import GrowingSchedule, Observer
from server.summary import Summary, summarise
from server.tables import plan_table
from server.whole_network import WholeNetwork, measure_whole_network

Note = Callable[[str], None]


def run_fleet(
    fleet: Fleet, output: Path, *, resume: bool, observer: Observer, note: Note, compare_whole: bool = True
) -> Summary:
    """Run `fleet` with the local engine in `output`; with `resume`, continue what is there.

    Raises UsageError where the folder belongs to another run or another process writes it, ExecutionError where the
    run cannot go on.
    """
    with exclusive(output):
        return _run(fleet, output, resume=resume, observer=observer, note=note, compare_whole=compare_whole)


def _run(fleet: Fleet, output: Path, *, resume: bool, observer: Observer, note: Note, compare_whole: bool) -> Summary:
    folder = RunFolder(output)
    if output.exists() and any(output.iterdir()) and not resume:
        raise UsageError(f"-o {output}: exists; continue it with --resume, or choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    settings = hashlib.sha256(msgspec.json.encode(fleet)).hexdigest()
    _claim(output, settings)
    source, missing = choose_source(fleet.data)
    for line in missing:
        note(f"data: {line}")
    note(f"data: {source}, split {fleet.data.split}")
    bundle = _bundle(fleet, output / "bundle", None)
    clients = [client.name for client in fleet.clients]
    parts = write_parts(source, output / "data", clients, fleet.data)
    plan = _plan(fleet, bundle, output, note)
    note(plan_table(plan))
    whole = _whole_network(fleet, output, note) if compare_whole else None
    engine = LocalEngine(
        bundle.path,
        data=parts,
        limits={client.name: client.limit_bytes for client in fleet.clients},
        test_data=source,
        test_examples=fleet.data.test_examples,
        settings=fleet.training,
        folder=output / "clients",
    )
    state, weights = folder.load_or_start(settings, lambda: load_file(bundle.weights_path()))
    if state.round:
        note(f"resumed after round {state.round}")
    schedule = GrowingSchedule(
        fleet=fleet, manifest=bundle.manifest, plan=plan, engine=engine, folder=folder, observer=observer
    )
    state, weights = schedule.run(state, weights)
    blocks = len(bundle.manifest.partition.blocks)
    accuracy, _ = engine.evaluate(blocks, folder.weights_path(state.round), full=True)
    model = _write_model(bundle.manifest, weights, output / "model.safetensors")
    summary = summarise(
        fleet=fleet,
        data=source,
        accuracy=accuracy,
        plan=plan,
        state=state,
        records=folder.records(),
        whole_network=whole,
        model_file=str(model),
    )
    write_json(output / "summary.json", summary)
    return summary


def _claim(output: Path, settings: str) -> None:
    """The folder belongs to one fleet file; another one is refused before anything is written."""
    path = output / "settings.sha256"
    if path.is_file():
        if path.read_text(encoding="ascii").strip() != settings:
            raise UsageError(f"-o {output}: was started with another fleet file; choose another folder")
        return
    if any(output.iterdir()):
        raise UsageError(f"-o {output}: is not a run's folder; choose another one")
    with atomic_file(path) as temporary:
        temporary.write_text(settings + "\n", encoding="ascii")


def _bundle(fleet: Fleet, path: Path, blocks: int | None) -> Bundle:
    if not (path / "manifest.json").is_file():
        from edge_runtime.export.bundle import export_bundle

        export_bundle(
            fleet.model.name,
            path,
            width=fleet.model.width,
            blocks=blocks,
            partition=fleet.model.partition if blocks is None else None,
            batch=fleet.model.batch,
            momentum=fleet.training.momentum,
            weight_decay=fleet.training.weight_decay,
            input_shape=fleet.model.input_shape,
            classes=fleet.model.classes,
            seed=fleet.model.seed,
        )
    return open_bundle(path)


def _plan(fleet: Fleet, bundle: Bundle, output: Path, note: Note) -> Plan:
    profiles = {}
    for client in fleet.clients:
        path = output / "profiles" / f"{client.name}.json"
        note(f"profiling {client.name} under {client.limit_mb:g} MB")
        command = [sys.executable, "-m", "profiler", str(bundle.path), "--limit", f"{client.limit_mb}MB"]
        command += ["--name", client.name, "-o", str(path), "--threads", str(fleet.training.threads)]
        command += ["--steps", "2", "--json"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        if finished.returncode != 0:
            lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
            raise ExecutionError(f"profile of {client.name}: {lines[-1]}")
        profiles[client.name] = read_json(path, DeviceProfile)
    plan = make_plan(bundle.manifest, bundle.digest, profiles, margin=fleet.margin)
    write_json(output / "plan.json", plan)
    return plan


def _whole_network(fleet: Fleet, output: Path, note: Note) -> WholeNetwork:
    path = output / "whole_network.json"
    if path.is_file():
        return read_json(path, WholeNetwork)
    note("measuring the whole network under the devices' limits")
    bundle = _bundle(fleet, output / "whole_bundle", 1)
    limits = {client.name: client.limit_bytes for client in fleet.clients}
    measured = measure_whole_network(fleet.model, bundle.path, limits, threads=fleet.training.threads)
    write_json(path, measured)
    return measured


def _write_model(manifest: Manifest, weights: Weights, path: Path) -> Path:
    """The assembled model by PyTorch's names, without the output modules of the growing steps."""
    missing = [spec.name for spec in manifest.model.tensors if spec.name not in weights]
    if missing:
        raise ExecutionError(f"assembled model: tensor {missing[0]} is missing")
    tensors = {spec.name: weights[spec.name] for spec in manifest.model.tensors}
    metadata = {"model": json.dumps({"name": manifest.model.name, "classes": manifest.model.classes})}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return path
