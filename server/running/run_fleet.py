"""One run from its fleet file to the trained model; every stage is kept on disk, so that a run can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_profiles.errors import FormatError, UsageError
from device_profiles.files import read_json, write_json
from edge_runtime.device.prepare.lock import exclusive
from edge_runtime.export.models.factory import find_models_in
from server.engines.prepared import PreparedRun
from server.finished.finished_model import write_finished
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.fleet.words import in_words_of
from server.methods import create_method
from server.methods.method import Method
from server.planner.assignment import BestHeld
from server.planner.steps import chosen_again
from server.rounds.checks import check_data, check_settings, check_stages
from server.rounds.observer import Observer
from server.rounds.run_state import FLEET_NAME, STATE_NAME, RunFolder, RunState
from server.rounds.schedule import Schedule
from server.rounds.summary import Summary, summarise
from server.running.output import leftovers_in, nothing_left_without_work, remove, write_settings
from server.running.planned_steps import PlannedSteps
from server.running.settings import settings_sha256

Note = Callable[[str], None]
Prepare = Callable[[Fleet, Path, Note], PreparedRun]
ENGINES = ("local", "simulation", "flower")


def run_fleet(
    fleet: Fleet,
    output: Path,
    *,
    resume: bool,
    observer: Observer,
    note: Note,
    engine: str = "local",
    compare_whole: bool = True,
    prepare: Prepare | None = None,
) -> Summary:
    """Run `fleet` with an engine of `ENGINES` in `output`; with `resume`, continue what is there. `prepare` sets the
    engine `flower` up, which only the process knows that Flower started.

    Raises UsageError where the folder belongs to another run or another process writes it, ExecutionError where the
    run cannot go on.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output}: is a file; give the folder of the run")
    with exclusive(output):
        if fleet.folder is not None:
            find_models_in(fleet.folder)
        settings = settings_sha256(fleet, engine)
        leftovers = leftovers_in(output, settings, resume=resume)
        with in_words_of(fleet.origin, fleet.model.name):
            check_settings(fleet, engine)
            if engine != "flower":
                check_data(fleet)
        if leftovers:
            note(f"-o {output}: another fleet file was started here and trained nothing; what it left is removed")
        remove(leftovers)
        with nothing_left_without_work(output):
            write_settings(output, settings)
            write_json(output / FLEET_NAME, fleet)
            method = create_method(fleet.method)
            if engine == "local":
                from server.engines.local.setup import prepare_local

                prepared = prepare_local(fleet, output, note, compare_whole=compare_whole)
            elif prepare is not None:
                prepared = prepare(fleet, output, note)
            else:
                from server.engines.simulation.setup import prepare_simulation

                prepared = prepare_simulation(fleet, output, note, method)
            try:
                return _run(fleet, output, settings, method, prepared, observer, note)
            finally:
                prepared.close()


def saved_as(output: Path) -> str:
    """How far the run in `output` is saved, for whoever stops it."""
    try:
        state = read_json(output / STATE_NAME, RunState)
    except FormatError:
        return "before its first round"
    return f"the run is saved after round {state.round}"


def _run(
    fleet: Fleet,
    output: Path,
    settings: str,
    method: Method,
    prepared: PreparedRun,
    observer: Observer,
    note: Note,
) -> Summary:
    folder, planner = RunFolder(output), BestHeld()
    steps = PlannedSteps(folder, prepared)
    known = folder.load() if folder.exists else None
    if known is not None and steps.may_change(known[0]):
        known = steps.changed(*known)
    stages = method.stages(fleet, steps.prepared.partition, steps.prepared.engine.clients())
    done = 0 if known is None else known[0].stage
    with in_words_of(fleet.origin, fleet.model.name):
        check_stages(fleet, stages, steps.prepared.engine.clients(), planner, done=done)
    state, weights = known or folder.load_or_start(settings, prepared.initial_weights)
    if state.round:
        note(f"resumed after round {state.round}")
    seen: dict[str, Client] = {}
    while True:
        prepared = steps.prepared
        stages = method.stages(fleet, prepared.partition, prepared.engine.clients())
        schedule = Schedule(
            fleet=fleet,
            stages=stages,
            structure=prepared.structure,
            engine=prepared.engine,
            evaluator=prepared.evaluator,
            folder=folder,
            observer=observer,
            planner=planner,
            absent_seconds=prepared.absent_seconds,
        )
        state, weights = schedule.run(state, weights, steps.may_change)
        seen |= {client.name: client for client in schedule.clients}
        if state.finished:
            break
        state, weights = steps.changed(state, weights)
    final = method.final(prepared.partition)
    accuracy, test_loss = prepared.evaluator.evaluate(final, folder.weights_path(state), full=True)
    model = output / "model.safetensors"
    write_finished(prepared.model, weights, model)
    summary = summarise(
        fleet=fleet,
        method=method.name,
        data=prepared.data,
        accuracy=accuracy,
        test_loss=test_loss,
        stages=stages,
        clients=tuple(seen.values()),
        state=state,
        records=folder.records(),
        failed=folder.failures(),
        whole_network=prepared.whole_network,
        model_file=str(model),
        planner=planner,
        planned_again=tuple(chosen.line for chosen in chosen_again(output, state.plan)),
    )
    write_json(output / "summary.json", summary)
    return summary
