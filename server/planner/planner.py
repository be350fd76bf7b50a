"""The planner: from profiles to what every client does in every step and distillation, with its promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from device_profiles.errors import FormatError
from device_profiles.manifest import Manifest
from device_profiles.model import Partition
from device_profiles.plan import ClientPlan, Plan, StepPlan
from device_profiles.profile import DeviceProfile
from device_profiles.promise import DEFAULT_MARGIN, promise_of
from device_profiles.work import Distill, Growing, block_of, distill, grow, label
from device_profiles.work import joint as join_blocks
from edge_runtime.device.worker.text import megabytes_up

Trained = Growing | Distill


def make_plan(
    manifest: Manifest,
    bundle_sha256: str,
    profiles: Mapping[str, DeviceProfile],
    *,
    margin: float = DEFAULT_MARGIN,
    joint: bool = False,
) -> Plan:
    """Plan every step of a bundle for the clients in `profiles` (by name; their limits are the budgets), and every
    distillation where one of the profiles has them.

    A client trains the active block when its promise, the larger of predicted and measured peak plus `margin`, fits
    its limit; with `joint`, it trains the longest run of blocks that ends with the active one and fits, of those that
    were profiled. Raises FormatError where a profile is of another bundle or has no limit.
    """
    for client, profile in profiles.items():
        if profile.bundle_sha256 != bundle_sha256:
            raise FormatError(f"profile of {client}: measured another bundle; run profl-profile on this one")
    partition = manifest.partition
    blocks = [block.index for block in partition.blocks]
    steps = [_step(_grown(partition, block, joint=joint), partition, profiles, margin) for block in blocks]
    measured = {cost.work for profile in profiles.values() for cost in profile.costs}
    taught = [work for work in (distill(partition, block) for block in blocks) if work in measured]
    distilled = [_step([work], partition, profiles, margin) for work in taught]
    best = tuple(_most_demanding(plans) for plans in zip(*(step.clients for step in steps), strict=True))
    return Plan(
        bundle_sha256=bundle_sha256,
        margin=margin,
        partition=partition,
        participation=_share(best),
        clients=best,
        steps=tuple(steps),
        distillations=tuple(distilled),
    )


def _grown(partition: Partition, block: int, *, joint: bool) -> list[Trained]:
    """What a client may train in the step of `block`, the best first."""
    runs: list[Trained] = [join_blocks(partition, first, block) for first in range(1, block)] if joint else []
    return [*runs, grow(partition, block)]


def _step(
    choices: Sequence[Trained], partition: Partition, profiles: Mapping[str, DeviceProfile], margin: float
) -> StepPlan:
    block = block_of(choices[-1], partition)
    plans = tuple(_first_held(choices, name, profile, partition, margin) for name, profile in profiles.items())
    return StepPlan(block=block, participation=_share(plans), clients=plans)


def _first_held(
    choices: Sequence[Trained], client: str, profile: DeviceProfile, partition: Partition, margin: float
) -> ClientPlan:
    """The first of `choices` that fits, or why the last one does not."""
    block = block_of(choices[-1], partition)
    plans = [_assign(work, label(work, partition), client, profile, block, margin) for work in choices]
    return next((plan for plan in plans if plan.fits), plans[-1])


def _assign(work: Trained, name: str, client: str, profile: DeviceProfile, block: int, margin: float) -> ClientPlan:
    budget = profile.device.limit_bytes or profile.device.memory_available_bytes
    if budget is None:
        raise FormatError(f"profile of {client}: neither limit_bytes nor memory_available_bytes is known")
    cost = profile.cost(name)
    if cost is None:
        return _idle(client, block, budget, None, f"{name} was not profiled")
    promise = promise_of(cost, margin)
    if not cost.fits:
        return _idle(client, block, budget, promise, cost.reason or "does not fit")
    if promise > budget:
        reason = f"needs {megabytes_up(promise)}, may use {budget / 2**20:.1f} MB"
        return _idle(client, block, budget, promise, reason)
    return ClientPlan(
        client=client,
        block=block,
        work=work,
        program=name,
        predicted_peak_bytes=promise,
        budget_bytes=budget,
        fits=True,
    )


def _idle(client: str, block: int, budget: int, promise: int | None, reason: str) -> ClientPlan:
    return ClientPlan(
        client=client,
        block=block,
        work=None,
        program=None,
        predicted_peak_bytes=promise,
        budget_bytes=budget,
        fits=False,
        reason=reason,
    )


def _share(plans: tuple[ClientPlan, ...]) -> float:
    return sum(plan.fits for plan in plans) / len(plans) if plans else 0.0


def _most_demanding(own: Sequence[ClientPlan]) -> ClientPlan:
    """Of one client's plans, the one with the largest promise: of those that it holds, if there are any."""
    fitting = [plan for plan in own if plan.fits]
    return max(fitting or own, key=lambda plan: plan.predicted_peak_bytes or 0)
