"""Set up the `flower` engine: wait for devices, have those profiled that need it, plan, export the bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.numpy import load_file

from device_profiles.files import write_json
from device_profiles.profile import DeviceProfile
from edge_runtime.device.prepare.bundle import Bundle
from server.data.split import check_source, choose_source
from server.engines.bundled.bundles import run_bundle
from server.engines.bundled.clients import all_stages, client_of
from server.engines.bundled.evaluator import BundleEvaluator
from server.engines.bundled.planned import calibration_bundle, planned_again, planned_bundle, run_programs
from server.engines.flower.activity import ActivityFile
from server.engines.flower.device import Device
from server.engines.flower.devices import Devices
from server.engines.flower.engine import Basis, FlowerEngine
from server.engines.flower.inbox import Inbox
from server.engines.flower.mail import Mail
from server.engines.flower.parcels import Parcel, Parcels
from server.engines.flower.post import Grid
from server.engines.flower.signing import OrderKey
from server.engines.prepared import PreparedRun
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.fleet.structure import Structure
from server.fleet.words import in_words_of
from server.planner.planner import make_plan
from server.planner.tables import plan_table
from server.rounds.checks import check_rounds
from server.rounds.run_state import RunFolder, RunState

if TYPE_CHECKING:
    from server.planner.run_programs import RunPrograms

Note = Callable[[str], None]
_TICK_SECONDS = 0.5
_SAID_SECONDS = 30.0
"""Between two lines that say who is waited for."""


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What a run knows of the federation that it runs in.

    Attributes:
        grid: the connection of this run.
        run: a name that no other run has, nor an earlier start of this one: devices count its attempts.
        flower_run: Flower's number of it.
        key: that orders are signed with, None where devices ask for no signature.
        named: the federation's name of a node, None where it has none.
    """

    grid: Grid
    run: str
    flower_run: int | None = None
    key: OrderKey | None = None
    named: Callable[[int], str | None] = lambda node: None


def prepare_flower(fleet: Fleet, output: Path, note: Note, *, federation: Federation) -> PreparedRun:
    """Everything for the devices of a federation, kept below `output`. Waits for `training.min_clients` of them.

    Raises ExecutionError where the SuperLink cannot be reached.
    """
    with in_words_of(fleet.origin, fleet.model.name):
        return _Preparation(fleet, output, note, federation).made()


class _Preparation:
    """One start of a run."""

    def __init__(self, fleet: Fleet, output: Path, note: Note, federation: Federation) -> None:
        self._fleet = fleet
        self._output = output
        self._note = note
        self._federation = federation
        self._programs: RunPrograms | None = None
        self._measured: Parcel | None = None
        self._mail = Mail(federation.grid, federation.key)
        self._inbox = Inbox(self._mail)
        self._devices = Devices(
            self._mail,
            self._inbox,
            run=federation.run,
            release=_release(),
            calibration=self._calibration,
            folder=output / "profiles",
            named=federation.named,
            threads=fleet.training.threads,
            note=note,
        )

    def made(self) -> PreparedRun:
        """The engine and all that belongs to it."""
        fleet, output, note = self._fleet, self._output, self._note
        source, missing = choose_source(fleet.data, fleet.model.targets)
        for line in missing:
            note(f"data: {line}")
        note(f"data: {source}, to evaluate with; devices train on their own")
        if fleet.method.name != "planned":
            self._check(run_bundle(fleet, output / "bundle"), source)
        self._wait()
        bundle = self._bundle()
        self._check(bundle, source)
        engine = FlowerEngine(
            run=self._federation.run,
            mail=self._mail,
            inbox=self._inbox,
            devices=self._devices,
            basis=self._basis(bundle),
            settings=fleet.training,
            folder=output / "clients",
        )
        return self._prepared(engine, bundle, source)

    def _prepared(self, engine: FlowerEngine, bundle: Bundle, source: str) -> PreparedRun:
        fleet, profiles, examples = self._fleet, *self._there()
        joint = fleet.method.name == "elastic"
        plan = make_plan(bundle.manifest, bundle.digest, profiles, margin=fleet.margin, joint=joint, examples=examples)
        write_json(self._output / "plan.json", plan)
        self._note(plan_table(plan))
        return PreparedRun(
            engine=engine,
            evaluator=BundleEvaluator(
                bundle.path, bundle.manifest.partition, data=source, examples=fleet.data.test_examples
            ),
            structure=Structure.of(bundle.manifest),
            partition=bundle.manifest.partition,
            model=bundle.manifest.model,
            initial_weights=lambda: load_file(bundle.weights_path()),
            data=source,
            plan=plan,
            absent_seconds=fleet.training.absent_seconds,
            again=lambda state: self._again(engine, bundle, source, state),
            close=engine.close,
        )

    def _again(self, engine: FlowerEngine, bundle: Bundle, source: str, state: RunState) -> PreparedRun | None:
        """The same for the devices that are there now, where they take other programs."""
        profiles, examples = self._there()
        if self._fleet.method.name != "planned" or len(profiles) < self._fleet.training.min_clients:
            return None
        programs = self._run_programs()
        other = planned_again(
            self._fleet, self._output, self._note, programs, profiles, examples, bundle=bundle, state=state
        )
        if other is None:
            return None
        engine.use(self._basis(other))
        return self._prepared(engine, other, source)

    def _basis(self, bundle: Bundle) -> Basis:
        structure = Structure.of(bundle.manifest)
        activity = ActivityFile(
            self._output, self._devices, structure, self._federation.run, self._federation.flower_run
        )
        return Basis(Parcels(bundle), structure, _Clients(self._fleet, bundle).of, activity.write)

    def _there(self) -> tuple[dict[str, DeviceProfile], dict[str, int]]:
        """Profiles and examples of the devices that may be given work."""
        there = self._devices.there()
        return {device.name: device.limited() for device in there}, {device.name: device.examples for device in there}

    def _wait(self) -> None:
        """Until `min_clients` devices may be given work, and for more of them as long as the fleet file says."""
        needed, enough_since, said_at = self._fleet.training.min_clients, None, 0.0
        while True:
            for _ in self._devices.look():
                pass
            arrived = self._inbox.next(_TICK_SECONDS)
            if arrived is not None:
                for change in self._devices.take(*arrived):
                    self._note(f"{change.device.name}: {change.what}")
            now, there = time.monotonic(), self._devices.there()
            if len(there) < needed:
                enough_since = None
                if now >= said_at:
                    said_at = now + _SAID_SECONDS
                    self._note(_waited_for(self._devices.all(), needed))
                continue
            enough_since = now if enough_since is None else enough_since
            if now - enough_since >= self._fleet.training.join_seconds:
                return

    def _calibration(self) -> Parcel:
        if self._measured is None:
            self._note("exporting the programs that devices measure")
            self._measured = Parcels(calibration_bundle(self._fleet, self._output, self._run_programs())).whole()
        return self._measured

    def _bundle(self) -> Bundle:
        if self._fleet.method.name != "planned":
            return run_bundle(self._fleet, self._output / "bundle")
        programs, (profiles, examples) = self._run_programs(), self._there()
        return planned_bundle(
            self._fleet,
            self._output,
            self._note,
            programs,
            profiles,
            examples,
            others_may_come=True,
            number=RunFolder(self._output).plan,
        )

    def _run_programs(self) -> RunPrograms:
        if self._programs is None:
            self._programs = run_programs(self._fleet, self._output)
        return self._programs

    def _check(self, bundle: Bundle, source: str) -> None:
        augment = self._fleet.training.augment != "none"
        check_source(source, bundle.manifest.model, targets=self._fleet.model.targets, augment=augment)
        check_rounds(self._fleet, all_stages(self._fleet, bundle))


def _waited_for(connected: Sequence[Device], needed: int) -> str:
    """Who is ready, and what each of the others waits for."""
    ready = sum(device.there for device in connected)
    waiting = [f"{device.name or 'a new device'}: {device.waits_for()}" for device in connected if not device.there]
    return "; ".join([f"waiting for devices: {ready} of {needed} are ready", *sorted(waiting)])


class _Clients:
    """Devices as the rounds see them, planned for once: rounds ask for each of them again and again."""

    def __init__(self, fleet: Fleet, bundle: Bundle) -> None:
        self._fleet = fleet
        self._bundle = bundle
        self._known: dict[str, tuple[DeviceProfile, Client]] = {}

    def of(self, device: Device) -> Client:
        """With nothing that it could be asked for, where its data are less than a batch."""
        assert device.profile is not None  # of one that may be given work
        known = self._known.get(device.name)
        said = (device.budget_bytes, device.examples)
        if known is None or known[0] != device.profile or (known[1].budget_bytes, known[1].examples) != said:
            self._known[device.name] = known = (device.profile, self._planned(device, device.profile))
        return known[1]

    def _planned(self, device: Device, profile: DeviceProfile) -> Client:
        budget, examples = device.budget_bytes, device.examples
        if examples < self._fleet.model.batch:
            return Client(name=device.name, budget_bytes=budget, examples=examples)
        return client_of(self._fleet, self._bundle, device.name, profile, budget_bytes=budget, examples=examples)


def _release() -> str:
    try:
        return version("profl-edge")
    except PackageNotFoundError:
        return "0"
