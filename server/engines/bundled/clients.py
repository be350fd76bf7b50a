"""The clients of a run and its stages, from a bundle and from what was measured on the devices."""

from __future__ import annotations

import msgspec

from device_profiles.profile import DeviceProfile
from edge_runtime.device.prepare.bundle import Bundle
from server.fleet.client import Client, alike
from server.fleet.fleet import Fleet
from server.methods import create_method
from server.methods.method import Stage
from server.planner.planner import BundlePlan
from server.planner.profiled import Gathering


def purposes_of(fleet: Fleet) -> list[str]:
    """What the fleet's method asks of clients, as `profl-profile` calls it."""
    if fleet.method.name == "planned":
        return ["joint", "head"]
    elastic, shrinking = fleet.method.name == "elastic", fleet.method.shrinking
    return ["grow", *(["joint"] if elastic else []), *(["distill"] if shrinking else [])]


def all_stages(fleet: Fleet, bundle: Bundle) -> tuple[Stage, ...]:
    """The stages that the run has where everybody holds everything: how many there are, before clients are measured."""
    needs = {program.work.name: 0 for program in bundle.manifest.programs}
    clients = alike(dict.fromkeys((client.name for client in fleet.clients), 0) or {"any": 0}, needs)
    return create_method(fleet.method).stages(fleet, bundle.manifest.partition, clients)


def client_of(
    fleet: Fleet, bundle: Bundle, name: str, profile: DeviceProfile, *, budget_bytes: int, examples: int
) -> Client:
    """One client, with what each training program of the bundle is promised to need there, and its seconds."""
    device = msgspec.structs.replace(profile.device, limit_bytes=budget_bytes)
    gathered = Gathering(bundle.digest, margin=fleet.margin, examples={name: examples})
    gathered.add(name, msgspec.structs.replace(profile, device=device))
    joint = fleet.method.name == "elastic"
    return BundlePlan(bundle.manifest, gathered, joint=joint).client(name, examples)
