"""One model in a process of its own: exported, verified, and thrown away."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from device_profiles.errors import ProflError, UsageError
from device_profiles.manifest import Manifest
from device_profiles.work import Grow
from tools.zoo.entries import Entry, Result

_BATCH = 8
_LOSS = re.compile(r"loss differs by ([^ ]+) ")
_chosen: list[Entry] = []


def chosen() -> object:
    """The factory that the export calls: the model that this process is about."""
    from tools.zoo.made import made

    (entry,) = _chosen
    return made(entry)


def export_one(entry: Entry, blocks: int, answer: Connection) -> None:
    """Send what the export of `entry` comes to."""
    import torch

    from edge_runtime.export.targets.native import export_bundle

    importlib.import_module(entry.package)
    torch.set_num_threads(1)
    _chosen.append(entry)
    lines: list[str] = []
    begin = time.process_time()
    refusal, arena = "", 0
    whole = False
    with tempfile.TemporaryDirectory() as folder:

        def export(count: int) -> Manifest:
            return export_bundle(
                f"{__name__}:chosen",
                Path(folder) / "bundle",
                blocks=count,
                batch=_BATCH,
                input_shape=entry.input_shape,
                input_dtype=entry.input_dtype,
                classes=entry.classes,
                progress=lines.append,
            )

        try:
            try:
                manifest = export(blocks)
            except UsageError as error:
                if error.field != "blocks":
                    raise
                manifest, whole = export(1), True
            steps = [program for program in manifest.programs if isinstance(program.work, Grow)]
            arena = max(program.memory.arena_bytes for program in steps)
        except ProflError as error:
            refusal = str(error)
        except Exception:  # a fault of ours, which the table shall show
            refusal = "fault: " + traceback.format_exc().strip().splitlines()[-1]
            if os.environ.get("ZOO_TRACEBACK"):
                traceback.print_exc()
    found = [match.group(1) for match in map(_LOSS.search, lines) if match is not None]
    answer.send(
        Result(
            name=entry.name,
            input_shape=entry.input_shape,
            refusal=" ".join(refusal.split()),
            seconds=time.process_time() - begin,
            arena_bytes=arena,
            only_block=whole,
            loss_difference=float(found[0]) if found else 0.0,
        )
    )
