"""One run from its fleet file to the trained model; every stage is kept on disk, so that a run can be resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
from safetensors.numpy import save_file

from device_profiles.errors import ExecutionError, UsageError
from device_profiles.files import atomic_file, write_json
from edge_runtime.device.lock import exclusive
from server.data_split import count_examples
from server.engines.prepared import Prepared
from server.fleet import Fleet
from server.methods import create_method
from server.methods.method import Method
from server.run_state import FLEET_NAME, RunFolder, Weights
from server.schedule import Observer, Schedule
from server.structure import Structure
from server.summary import Summary, summarise

Note = Callable[[str], None]
ENGINES = ("local", "simulation")


def run_fleet(
    fleet: Fleet,
    output: Path,
    *,
    resume: bool,
    observer: Observer,
    note: Note,
    engine: str = "local",
    compare_whole: bool = True,
) -> Summary:
    """Run `fleet` with an engine of `ENGINES` in `output`; with `resume`, continue what is there.

    Raises UsageError where the folder belongs to another run or another process writes it, ExecutionError where the
    run cannot go on.
    """
    with exclusive(output):
        if output.exists() and any(output.iterdir()) and not resume:
            raise UsageError(f"-o {output}: exists; continue it with --resume, or choose another folder")
        output.mkdir(parents=True, exist_ok=True)
        settings = hashlib.sha256(msgspec.json.encode([fleet, engine])).hexdigest()
        _claim(output, settings)
        write_json(output / FLEET_NAME, fleet)
        method = create_method(fleet.method)
        if engine == "local":
            from server.engines.local_setup import prepare_local

            prepared = prepare_local(fleet, output, note, compare_whole=compare_whole)
        else:
            from server.engines.simulation.setup import prepare_simulation

            prepared = prepare_simulation(fleet, output, note, method)
        return _run(fleet, output, settings, method, prepared, observer, note)


def _run(
    fleet: Fleet,
    output: Path,
    settings: str,
    method: Method,
    prepared: Prepared,
    observer: Observer,
    note: Note,
) -> Summary:
    folder = RunFolder(output)
    stages = method.stages(fleet, prepared.blocks, prepared.promises)
    state, weights = folder.load_or_start(settings, prepared.initial_weights)
    if state.round:
        note(f"resumed after round {state.round}")
    schedule = Schedule(
        fleet=fleet,
        stages=stages,
        structure=prepared.structure,
        engine=prepared.engine,
        folder=folder,
        observer=observer,
        examples=count_examples(prepared.data, [client.name for client in fleet.clients], fleet.data),
    )
    state, weights = schedule.run(state, weights)
    accuracy, _ = prepared.engine.evaluate(method.final(prepared.blocks), folder.weights_path(state.round), full=True)
    model = _write_model(fleet, prepared.structure, weights, output / "model.safetensors")
    summary = summarise(
        fleet=fleet,
        method=method.name,
        data=prepared.data,
        accuracy=accuracy,
        stages=stages,
        promises=prepared.promises,
        state=state,
        records=folder.records(),
        failed=folder.failures(),
        whole_network=prepared.whole_network,
        model_file=str(model),
    )
    write_json(output / "summary.json", summary)
    return summary


def _claim(output: Path, settings: str) -> None:
    """The folder belongs to one fleet file; another one is refused before anything is written."""
    path = output / "settings.sha256"
    if path.is_file():
        if path.read_text(encoding="ascii").strip() != settings:
            raise UsageError(f"-o {output}: was started with another fleet file or engine; choose another folder")
        return
    if any(output.iterdir()):
        raise UsageError(f"-o {output}: is not a run's folder; choose another one")
    with atomic_file(path) as temporary:
        temporary.write_text(settings + "\n", encoding="ascii")


def _write_model(fleet: Fleet, structure: Structure, weights: Weights, path: Path) -> Path:
    """The assembled model by PyTorch's names, without the output modules of the growing steps."""
    missing = [name for name in structure.model if name not in weights]
    if missing:
        raise ExecutionError(f"assembled model: tensor {missing[0]} is missing")
    tensors = {name: weights[name] for name in structure.model}
    metadata = {"model": json.dumps({"name": fleet.model.name, "classes": fleet.model.classes})}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return path
