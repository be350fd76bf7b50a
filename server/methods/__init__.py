"""Ways of training one model on clients of different memory: ProFL and what it is compared with, a module each."""

from __future__ import annotations

from collections.abc import Callable

from server.fleet.fleet import MethodSettings
from server.methods import depthfl, elastic, finetune, planned, profl, sublayers, whole, width
from server.methods.method import Method

METHODS: dict[str, Callable[[MethodSettings], Method]] = {
    "profl": profl.ProFL,
    "elastic": elastic.ElasticProFL,
    "planned": planned.Planned,
    "fedavg": whole.FedAvg,
    "exclusivefl": whole.ExclusiveFL,
    "allsmall": width.AllSmall,
    "heterofl": width.HeteroFL,
    "depthfl": depthfl.DepthFL,
    "finetune": finetune.FineTune,
    "fedpmt": planned.FedPMT,
    "fedplt": sublayers.FedPLT,
}


def create_method(settings: MethodSettings) -> Method:
    """The method that a fleet file names."""
    return METHODS[settings.name](settings)
