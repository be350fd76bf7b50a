"""`python -m tools.bench.server_memory`: the server's peak memory for one round of many updates.

Updates arrive one by one, are spooled, judged and averaged as in a run. Prints VmHWM of this process and the bytes of
one update, as JSON.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from device_profiles.model import Block, Partition
from device_profiles.update import UpdateMetadata
from device_profiles.work import Whole
from server.averaging.aggregation import ReceivedUpdate, average
from server.averaging.spool import Spool
from server.fleet.structure import Structure, TrainedTensor
from server.judging.judging import Asked, judge

_WORK = Whole()
_BATCH = 32


@click.command()
@click.option("--updates", type=click.IntRange(min=1), default=8, show_default=True, help="Clients of the round.")
@click.option("--size", type=click.IntRange(min=1), default=20, show_default=True, help="Of one update, MB.")
def main(updates: int, size: int) -> None:
    """Measure one round."""
    base = _model(size)
    roles: Mapping[str, TrainedTensor] = {
        name: TrainedTensor(shape=tensor.shape, role="running_statistic" if "running" in name else "parameter")
        for name, tensor in base.items()
    }
    partition = Partition(blocks=(Block(index=1, first_unit=0, last_unit=0),))
    structure = Structure(model=tuple(base), partition=partition, blocks=(frozenset(base),), trained={_WORK: roles})
    names = [f"client{number:03d}" for number in range(updates)]
    asked = {name: Asked(work=_WORK, batch=_BATCH, examples=320, steps=10) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "updates")
        received = [spool.put(_update(name, number, base)) for number, name in enumerate(names)]
        accepted, rejected = judge(received, asked, structure, "v", base)
        merged = average(accepted, base)
    click.echo(
        json.dumps(
            {
                "updates": updates,
                "update_bytes": sum(tensor.nbytes for tensor in merged.values()),
                "accepted": len(accepted),
                "rejected": rejected,
                "cut": sum(bool(update.cut) for update in accepted),
                "peak_bytes": _peak_bytes(),
            }
        )
    )


def _model(megabytes: int) -> dict[str, NDArray[np.float32]]:
    """Layers of 2 MB, each with its statistics, and one tensor of half of the model."""
    generator = np.random.default_rng(0)
    rows = {"large": 1024 * megabytes // 2} | {f"layer{number}": 2048 for number in range(megabytes // 4)}
    model = {f"{name}.weight": generator.standard_normal((count, 256), np.float32) for name, count in rows.items()}
    model |= {f"{name}.running_mean": np.zeros(256, np.float32) for name in rows}
    return model | {f"{name}.running_var": np.ones(256, np.float32) for name in rows}


def _update(client: str, number: int, base: Mapping[str, NDArray[np.float32]]) -> ReceivedUpdate:
    generator = np.random.default_rng([number, 1])
    # The first one goes too far and is cut down, which must not take memory either.
    far = np.float32(0.05 if number == 0 else 0.01)
    tensors = {
        # All move the same way, each a little beside it.
        name: tensor + far * (0.3 + 0.1 * generator.standard_normal(tensor.shape, np.float32))
        if "weight" in name
        else tensor
        for name, tensor in base.items()
    }
    metadata = UpdateMetadata(
        block=0, program=_WORK.name, examples=320, steps=10, base_version="v", loss_first=1.0, loss_last=1.0
    )
    return ReceivedUpdate(client=client, metadata=metadata, tensors=tensors)


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main()
