"""`python -m tools.experiments.promises.make`: promises at the scale of the published thresholds.

ProFL's steps and the whole network have thresholds in the authors' example (ResNet18, CIFAR shape). What other methods
train is counted here by one rule (`server.engines.simulation.promises`, source `pytorch`, batch 128) and scaled by the
ratio of published to counted bytes of the whole network.
"""

from __future__ import annotations

from pathlib import Path

from device_profiles.files import write_json
from device_profiles.work import label, suffixes
from server.engines.simulation.promises import promise_source, promises_of
from server.engines.simulation.segments import ModelPieces
from server.fleet.fleet import DataSettings, Fleet, MethodSettings
from server.fleet.model import ModelSettings
from server.fleet.population import ClientSettings
from server.fleet.virtual import PromiseSettings
from server.methods import METHODS, create_method
from server.planner.menus import step_alone

_MB = 1 << 20
PUBLISHED_MB = {"whole": 840, "grow-block1": 506, "grow-block2": 220, "grow-block3": 112, "grow-block4": 100}
FILE = Path(__file__).parent / "resnet18-published.json"


def full_network(batch: int, promises: PromiseSettings) -> Fleet:
    """A fleet file of ResNet18 as published, of which only the promises are asked."""
    return Fleet(
        model=ModelSettings(name="resnet18", width=64, batch=batch),
        data=DataSettings(sources=("fashion-mnist",)),
        named=(ClientSettings(name="any", limit_mb=1),),
        promises=promises,
    )


def _runs(fleet: Fleet, units: int) -> dict[str, int]:
    """Counted bytes of every run of units, by its units, and of the output modules alone."""
    count = promise_source(fleet)
    found = {}
    for end in range(units):
        partition = step_alone(end, units)
        for work, needed in count(suffixes(partition, 1), partition).items():
            found[work.name.replace("grow", "joint")] = needed
    return found


def main() -> None:
    """Write the table beside this file."""
    fleet = full_network(128, PromiseSettings(source="pytorch"))
    partition = ModelPieces(fleet.model).partition
    names = [name for name in METHODS if name not in ("planned", "fedpmt", "finetune")]
    methods = [create_method(MethodSettings(name=name, shrinking=True)) for name in names]  # type: ignore[arg-type]
    works = dict.fromkeys(work for method in methods for work in method.works(partition))
    needed_by = promises_of(fleet, list(works), partition)
    counted = {label(work, partition): needed for work, needed in needed_by.items()}
    scale = PUBLISHED_MB["whole"] * _MB / counted["whole"]
    table = {name: int(needed * scale) for name, needed in counted.items()}
    table |= {name: mb * _MB for name, mb in PUBLISHED_MB.items()}
    runs = _runs(fleet, partition.blocks[-1].last_unit + 1)
    counted |= runs
    table |= {name: int(needed * scale) for name, needed in runs.items()}
    write_json(FILE, {"model": "resnet18, width 64, batch 128", "counted": counted, "promises": table})


if __name__ == "__main__":
    main()
