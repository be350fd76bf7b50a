"""Resident bytes of a training process before it touches the arena of its program."""

from __future__ import annotations

import subprocess

from device_profiles.errors import ExecutionError
from device_profiles.manifest import Program
from edge_runtime.device.prepare import launch
from edge_runtime.device.prepare.bundle import Bundle
from edge_runtime.device.prepare.job import new_job, program_job
from edge_runtime.device.worker.job import Job


def base_bytes(bundle: Bundle, program: Program) -> int:
    """Measured in a process of its own; raises ExecutionError where it did not live."""
    try:
        return int(launch.read(base_job(bundle, program)))
    except (subprocess.CalledProcessError, ValueError) as error:
        raise ExecutionError(f"{bundle.path}: base: {error}") from None


def base_job(bundle: Bundle, program: Program) -> Job:
    """That of the process."""
    return new_job("base", program_job(bundle, program, threads=1), threads=1, json=True)
