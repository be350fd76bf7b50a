"""How many devices could train the whole network at once: measured under their limits, with both runtimes.

It is a comparison: what cannot be measured is said, and the run goes on without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from device_profiles.errors import ExecutionError, ProflError
from edge_runtime.device.limits.processes import start_limited
from server.fleet.model import ModelSettings

_TIMEOUT_SECONDS = 90.0
"""A process that is kept alive at its limit by reclaim alone is not training; it is ended after this."""


class WholeNetwork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices that trained one step of the whole network, by runtime, and its peak without a limit.

    Both are None where it could not be trained without a limit either; `native_failure` and `pytorch_failure` say why.
    """

    native_devices: int | None
    native_peak_bytes: int | None
    pytorch_devices: int | None
    pytorch_peak_bytes: int | None
    native_failure: str | None = None
    pytorch_failure: str | None = None


def measure_whole_network(
    model: ModelSettings,
    whole_bundle: Callable[[], Path],
    limits: Mapping[str, int],
    *,
    threads: int,
    folder: Path | None = None,
) -> WholeNetwork:
    """Train one step of the whole network without a limit, then under the devices' limits from the largest down.

    A device whose limit is below one that failed is counted as failed without another run. `whole_bundle` makes the
    bundle with the network as one block, and may raise a ProflError; own models are looked for in `folder` as well.
    """

    def native() -> list[str]:
        command = [sys.executable, "-m", "edge_runtime.device", "bench", str(whole_bundle()), "--block", "1"]
        return [*command, "--steps", "1", "--warmup", "0", "--threads", str(threads), "--json"]

    def pytorch() -> list[str]:
        command = [
            sys.executable,
            "-m",
            "server.planner.pytorch_step",
            msgspec.json.encode(model).decode(),
            str(threads),
        ]
        return command if folder is None else [*command, str(folder.absolute())]

    measured: dict[str, int | str | None] = {}
    for name, make in (("native", native), ("pytorch", pytorch)):
        try:
            command = make()
            measured[f"{name}_peak_bytes"] = _peak(command, None)
            measured[f"{name}_devices"] = _fitting(command, limits)
        except ProflError as error:
            measured |= {f"{name}_peak_bytes": None, f"{name}_devices": None, f"{name}_failure": str(error)}
    return msgspec.convert(measured, WholeNetwork)


def _fitting(command: list[str], limits: Mapping[str, int]) -> int:
    fitting = 0
    for limit in sorted(limits.values(), reverse=True):
        try:
            _peak(command, limit)
        except ExecutionError:
            break
        fitting += 1
    return fitting


def _peak(command: list[str], limit_bytes: int | None) -> int:
    """Peak of the process in bytes; raises ExecutionError with its last words where its step does not end."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start_limited(command, limit_bytes=limit_bytes, env=dict(os.environ), stdout=output, stderr=errors)
        timed_out = False
        try:
            process.wait(_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
        except BaseException:
            process.kill()
            process.outcome()
            raise
        outcome = process.outcome()
        output.seek(0)
        errors.seek(0)
        said, complaint = output.read(), errors.read().decode(errors="replace").strip().splitlines()
    if timed_out:
        raise ExecutionError(f"one step took longer than {_TIMEOUT_SECONDS:.0f} s")
    if outcome.returncode < 0:
        raise ExecutionError(f"its process died by signal {-outcome.returncode}")
    if outcome.returncode > 0:
        raise ExecutionError(complaint[-1] if complaint else f"its process ended with status {outcome.returncode}")
    try:
        return int(json.loads(said)["measured_peak_bytes"])
    except (ValueError, KeyError, TypeError):
        raise ExecutionError("its process did not say how much memory it used") from None
