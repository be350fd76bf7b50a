"""The clients of a run and its stages, from a bundle and from what was measured on the devices."""

from __future__ import annotations

from collections.abc import Mapping

from device_profiles.plan import Plan
from device_profiles.profile import DeviceProfile
from edge_runtime.device.prepare.bundle import Bundle
from server.fleet.client import Client, alike
from server.fleet.fleet import Fleet
from server.methods import create_method
from server.methods.method import Stage
from server.planner.planner import promises_on, seconds_on


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


def planned_clients(
    fleet: Fleet, bundle: Bundle, profiles: Mapping[str, DeviceProfile], plan: Plan, examples: Mapping[str, int]
) -> list[Client]:
    """Each with what all the training programs of the bundle are promised to need there."""
    budgets = {client.client: client.budget_bytes for client in plan.clients}
    return [
        client_of(fleet, bundle, name, profiles[name], budget_bytes=budget, examples=examples[name])
        for name, budget in budgets.items()
    ]


def client_of(
    fleet: Fleet, bundle: Bundle, name: str, profile: DeviceProfile, *, budget_bytes: int, examples: int
) -> Client:
    """One client, with what each training program of the bundle is promised to need there, and its seconds."""
    manifest, digest = bundle.manifest, bundle.digest
    return Client(
        name=name,
        budget_bytes=budget_bytes,
        needs=promises_on(manifest, digest, name, profile, margin=fleet.margin, examples=examples),
        examples=examples,
        step_seconds=seconds_on(manifest, digest, profile),
    )
