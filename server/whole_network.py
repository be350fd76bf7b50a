"""How many devices could train the whole network at once: measured under their limits, with both runtimes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from device_profiles.errors import ExecutionError
from edge_runtime.device.limits import start_limited
from server.fleet import ModelSettings

_TIMEOUT_SECONDS = 90.0
"""A process that is kept alive at its limit by reclaim alone is not training; it is ended after this."""


class WholeNetwork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices that trained one step of the whole network, by runtime, and its peak without a limit."""

    native_devices: int
    native_peak_bytes: int
    pytorch_devices: int
    pytorch_peak_bytes: int


def measure_whole_network(
    model: ModelSettings, whole_bundle: Path, limits: Mapping[str, int], *, threads: int
) -> WholeNetwork:
    """Train one step of the whole network without a limit, then under the devices' limits from the largest down.

    A device whose limit is below one that failed is counted as failed without another run. `whole_bundle` holds the
    network as one block. Raises ExecutionError where it cannot be trained without a limit either.
    """
    native = [sys.executable, "-m", "edge_runtime.device", "bench", str(whole_bundle), "--block", "1"]
    native += ["--steps", "1", "--warmup", "0", "--threads", str(threads), "--json"]
    pytorch = [sys.executable, "-m", "server.pytorch_step", msgspec.json.encode(model).decode(), str(threads)]
    counts = {}
    for name, command in (("native", native), ("pytorch", pytorch)):
        peak = _run(command, None)
        if peak is None:
            raise ExecutionError(f"the whole network could not be trained with {name} on this machine at all")
        counts[name] = (_fitting(command, limits), peak)
    return WholeNetwork(
        native_devices=counts["native"][0],
        native_peak_bytes=counts["native"][1],
        pytorch_devices=counts["pytorch"][0],
        pytorch_peak_bytes=counts["pytorch"][1],
    )


def _fitting(command: list[str], limits: Mapping[str, int]) -> int:
    fitting = 0
    for limit in sorted(limits.values(), reverse=True):
        if _run(command, limit) is None:
            break
        fitting += 1
    return fitting


def _run(command: list[str], limit_bytes: int | None) -> int | None:
    """Peak of the process in bytes, None when it did not live to the end of its step."""
    with tempfile.TemporaryFile() as output:
        process = start_limited(
            command, limit_bytes=limit_bytes, env=dict(os.environ), stdout=output, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        except BaseException:
            process.kill()
            process.outcome()
            raise
        outcome = process.outcome()
        output.seek(0)
        said = output.read()
    return int(json.loads(said)["measured_peak_bytes"]) if outcome.returncode == 0 else None
