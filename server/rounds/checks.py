"""What a run cannot do is said before its first round, and as far as possible before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from device_profiles.errors import ExecutionError, UsageError
from device_profiles.settings import Setting
from edge_runtime.export.models.factory import is_own
from server.data.split import choose_source, count_examples
from server.fleet.client import Client
from server.fleet.fleet import Fleet
from server.methods import create_method
from server.methods.labels import check_labels
from server.methods.method import Stage
from server.planner.assignment import Planner


def check_settings(fleet: Fleet, engine: str) -> None:
    """Raise UsageError for settings that contradict each other, or that `engine` does not know."""
    wrong = fleet.contradiction()
    if wrong is not None:
        raise wrong
    training = fleet.training
    if training.max_seconds and engine not in _WITH_DEVICES:
        raise UsageError(
            f"clients of --engine {engine} keep no time",
            field="training.max_seconds",
            value=f"{training.max_seconds:g}",
            remedy="leave it out",
        )
    _check_own_model(fleet)
    check_labels(fleet, create_method(fleet.method))
    if training.cache_prefix != "none" and engine == "flower":
        raise UsageError(
            "devices of --engine flower keep no outputs of frozen blocks",
            field="training.cache_prefix",
            value=training.cache_prefix,
            remedy="leave it out",
        )
    if fleet.privacy is not None:
        _check_privacy(fleet)
    if engine in _WITH_DEVICES and fleet.method.name not in _OF_LIGHT_RUNTIME:
        raise UsageError(
            f"the light runtime trains by {', '.join(_OF_LIGHT_RUNTIME)}",
            field="method.name",
            value=fleet.method.name,
            remedy="use --engine simulation",
        )


def _check_privacy(fleet: Fleet) -> None:
    """What the noise's guarantee does not hold for."""
    if fleet.training.aggregation != "mean":
        raise UsageError(
            "[privacy] holds for a mean that nothing else of other updates has changed",
            field="training.aggregation",
            value=fleet.training.aggregation,
            remedy='write aggregation = "mean"',
        )
    if fleet.method.name not in _OF_LIGHT_RUNTIME:
        raise UsageError(
            f"[privacy] goes with {', '.join(_OF_LIGHT_RUNTIME)}, whose updates are whole tensors",
            field="method.name",
            value=fleet.method.name,
            remedy="use one of these, or leave [privacy] out",
        )


_WITH_DEVICES = ("local", "flower")
"""Engines whose clients run programs."""
_OF_LIGHT_RUNTIME = ("profl", "elastic", "planned", "finetune")
"""Methods of which every piece of work is a program."""
_OF_ONE_WIDTH = (*_OF_LIGHT_RUNTIME, "fedavg", "exclusivefl", "depthfl", "fedpmt", "fedplt")
"""Methods that take the model as it is."""


def _check_own_model(fleet: Fleet) -> None:
    """What a model whose width nobody but its factory knows cannot do."""
    if not is_own(fleet.model.name):
        return
    for key, width in (("model.width", fleet.model.width), ("promises.width", fleet.promises.width)):
        if width is not None:
            raise UsageError(
                "only built-in models have a width",
                field=key,
                value=width,
                remedy=f"leave it out for {fleet.model.name}",
            )
    if fleet.method.name not in _OF_ONE_WIDTH:
        raise UsageError(
            f"trains narrower copies of the model, which only built-in models have, not {fleet.model.name}",
            field="method.name",
            value=fleet.method.name,
            remedy=f"use one of {', '.join(_OF_ONE_WIDTH)}",
        )


def check_data(fleet: Fleet) -> None:
    """Raise where the data are missing or cannot be cut so, or too few clients have as much as one batch."""
    targets = fleet.model.targets
    source, _ = choose_source(fleet.data, targets)
    counts = count_examples(source, [client.name for client in fleet.clients], fleet.data, targets).values()
    batch, needed = fleet.model.batch, fleet.training.min_clients
    enough = sum(count >= batch for count in counts)
    if enough < needed:
        raise UsageError(
            f"{enough} of {len(counts)} clients have as many examples (at most {max(counts)}), training.min_clients is "
            f"{needed}",
            field="model.batch",
            value=batch,
            remedy="use a smaller batch",
        )


def check_rounds(fleet: Fleet, stages: Sequence[Stage]) -> None:
    """Raise ExecutionError where the round budget is smaller than the number of stages."""
    budget = fleet.training.rounds
    if budget is not None and budget < len(stages):
        raise ExecutionError(
            f"the method has {len(stages)} stages", field="training.rounds", value=budget, remedy="give more"
        )


def check_stages(
    fleet: Fleet, stages: Sequence[Stage], clients: Sequence[Client], planner: Planner, *, done: int = 0
) -> None:
    """Raise ExecutionError where a stage that is not done yet cannot be trained by who is there."""
    check_rounds(fleet, stages)
    needed = fleet.training.min_clients
    for stage in stages[done:]:
        working = len(planner.assign(stage, clients))
        if working < needed:
            what = f"block {stage.block}" if stage.block else "the network"
            raise ExecutionError(
                f"{working} of {len(clients)} clients hold the promise of {what}, training.min_clients is {needed}",
                place=stage.title,
                remedy=("use a finer ", Setting("model.partition"), " or a smaller ", Setting("model.batch")),
            )
