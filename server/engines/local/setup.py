"""Set up the `local` engine: export the bundle, profile every client under its limit, plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.numpy import load_file

from device_profiles.contract import CACHED_PREFIX_VARIANT
from device_profiles.files import read_json, write_json
from device_profiles.model import Partition
from device_profiles.plan import Plan
from device_profiles.profile import DeviceProfile
from device_profiles.promise import promise_of
from device_profiles.work import Distill, Grow, Work
from server.data.split import check_source, choose_source, count_examples, write_parts
from server.engines.bundled.bundles import run_bundle
from server.engines.bundled.clients import all_stages, purposes_of
from server.engines.bundled.evaluator import BundleEvaluator
from server.engines.bundled.planned import calibration_bundle, planned_bundle, run_programs
from server.engines.local.engine import LocalEngine
from server.engines.local.profiling import profile_clients
from server.engines.prepared import PreparedRun
from server.fleet.fleet import Fleet
from server.fleet.structure import Structure
from server.fleet.words import in_words_of
from server.planner.planner import BundlePlan
from server.planner.profiled import Gathering
from server.planner.tables import plan_table
from server.planner.whole_network import WholeNetwork, measure_whole_network
from server.rounds.checks import check_rounds
from server.rounds.summary_table import unmeasured

Note = Callable[[str], None]


def prepare_local(fleet: Fleet, output: Path, note: Note, *, compare_whole: bool) -> PreparedRun:
    """Everything for real processes, kept below `output`; what is there already is taken from there."""
    with in_words_of(fleet.origin, fleet.model.name):
        return _prepare(fleet, output, note, compare_whole=compare_whole)


def _prepare(fleet: Fleet, output: Path, note: Note, *, compare_whole: bool) -> PreparedRun:
    source, missing = choose_source(fleet.data, fleet.model.targets)
    for line in missing:
        note(f"data: {line}")
    note(f"data: {source}, split {fleet.data.split}")
    clients = [client.name for client in fleet.clients]
    targets = fleet.model.targets
    examples = count_examples(source, clients, fleet.data, targets)
    programs = run_programs(fleet, output) if fleet.method.name == "planned" else None
    bundle = run_bundle(fleet, output / "bundle") if programs is None else calibration_bundle(fleet, output, programs)
    check_source(source, bundle.manifest.model, targets=targets, augment=fleet.training.augment != "none")
    if programs is None:
        check_rounds(fleet, all_stages(fleet, bundle))
    parts = write_parts(source, output / "data", clients, fleet.data, targets)
    profiles = profile_clients(fleet, bundle, output / "profiles", note, purposes=purposes_of(fleet))
    if programs is not None:
        bundle = planned_bundle(fleet, output, note, programs, profiles, examples)
    joint = fleet.method.name == "elastic"
    gathered = Gathering(bundle.digest, margin=fleet.margin, examples=examples)
    for name, profile in profiles.items():
        gathered.add(name, profile)
    planned = BundlePlan(bundle.manifest, gathered, joint=joint)
    plan = planned.document(bundle.digest, fleet.margin, clients)
    write_json(output / "plan.json", plan)
    note(plan_table(plan))
    one_block = Partition.ending_with([len(bundle.manifest.model.units) - 1])
    whole = _whole_network(fleet, output, note, one_block) if compare_whole else None
    structure = Structure.of(bundle.manifest)
    engine = LocalEngine(
        bundle.path,
        clients=[planned.client(name, examples[name]) for name in clients],
        data=parts,
        limits={client.name: client.limit_bytes for client in fleet.clients},
        settings=fleet.training,
        cached=_cached(fleet, profiles, plan, note),
        folder=output / "clients",
        structure=structure,
    )
    return PreparedRun(
        engine=engine,
        evaluator=BundleEvaluator(
            bundle.path, bundle.manifest.partition, data=source, examples=fleet.data.test_examples
        ),
        structure=structure,
        partition=bundle.manifest.partition,
        model=bundle.manifest.model,
        initial_weights=lambda: load_file(bundle.weights_path()),
        data=source,
        plan=plan,
        whole_network=whole,
    )


def _cached(fleet: Fleet, profiles: Mapping[str, DeviceProfile], plan: Plan, note: Note) -> dict[str, frozenset[Work]]:
    """By client, the work that it holds as well with the outputs of frozen blocks in a file, by what was measured."""
    if fleet.training.cache_prefix == "none":
        return {client.client: frozenset() for client in plan.clients}
    held: dict[str, frozenset[Work]] = {}
    for client in plan.clients:
        costs = [cost for cost in profiles[client.client].costs if cost.variant == CACHED_PREFIX_VARIANT and cost.fits]
        fitting = [cost for cost in costs if promise_of(cost, fleet.margin) <= client.budget_bytes]
        held[client.client] = frozenset(cost.work for cost in fitting if isinstance(cost.work, (Grow, Distill)))
    count = sum(bool(names) for names in held.values())
    note(f"outputs of frozen blocks: kept as {fleet.training.cache_prefix} by {count} of {len(held)} clients")
    return held


def _whole_network(fleet: Fleet, output: Path, note: Note, whole: Partition) -> WholeNetwork:
    path = output / "whole_network.json"
    if path.is_file():
        return read_json(path, WholeNetwork)
    note("measuring the whole network under the devices' limits")
    measured = measure_whole_network(
        fleet.model,
        lambda: run_bundle(fleet, output / "whole_bundle", partition=whole).path,
        {client.name: client.limit_bytes for client in fleet.clients},
        threads=fleet.training.threads,
        folder=fleet.folder,
    )
    for line in unmeasured(measured):
        note(f"{line}; the run goes on without this comparison")
    if not unmeasured(measured):
        write_json(path, measured)
    return measured
