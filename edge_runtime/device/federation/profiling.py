"""A profile order: the programs of a bundle are measured by `profl-profile`, under the limit of a training."""

from __future__ import annotations

import sys
import time

import msgspec

from device_profiles.errors import ExecutionError, ProflError
from device_profiles.federation import ProfileAnswer, ProfileOrder
from edge_runtime.device.federation.answers import Answered, Fetch
from edge_runtime.device.federation.child import Child
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.files import fetch_missing, lay_out
from edge_runtime.device.fleet_api.errors import LinkError
from edge_runtime.device.limits.processes import Outcome


class ProfileJob:
    """Measuring, from the profiler's start to the profile. A restarted one goes on behind the last program.

    Programs are measured under the limit that a training has. The profiler's own process comes on top of it, so that
    the client leaves the group of the whole limit meanwhile.
    """

    def __init__(self, device: Device, order: ProfileOrder, *, seconds: float) -> None:
        self._device = device
        self._deadline = time.monotonic() + seconds
        folder = device.state.task
        self._output = folder / "profile.json"
        settings = device.settings
        threads = min(order.threads, settings.threads or order.threads)
        command = [sys.executable, "-P", "-m", "profiler", str(folder / "bundle"), "--limit", f"{device.budget()}B"]
        command += ["--name", settings.name, "--purpose", "all", "--threads", str(threads)]
        command += ["--steps", str(order.steps), "-o", str(self._output), "--json"]
        if device.group is not None:
            device.group.leave()
        self._child = Child(command, limit_bytes=None, said=folder / "said.json", complaint=folder / "complaint.txt")
        device.use.child = self._child

    @property
    def doing(self) -> str:
        """For people and for the server."""
        return "measures what training takes"

    def poll(self) -> Answered | None:
        """The answer at the end."""
        if not self._child.ended():
            return None if time.monotonic() < self._deadline else self.abandon("took too long")
        outcome = self._end()
        if outcome.returncode != 0:
            return no_profile(self._child.last_words() or f"exit status {outcome.returncode}")
        try:
            profile = self._device.state.take_profile(self._output)
        except (ProflError, OSError) as error:
            return no_profile(str(error))
        document = msgspec.json.encode(ProfileAnswer(status="ok", profile=profile))
        return Answered(document=document, what=f"profile of {len(profile.costs)} programs")

    def stop(self) -> None:
        """End the profiler; what it has measured is there for the next start."""
        self._child.wait_stopped()
        self._end()

    def abandon(self, why: str) -> Answered:
        """End the profiler at once."""
        self._child.kill()
        self._end()
        return no_profile(why)

    def _end(self) -> Outcome:
        outcome = self._child.outcome()
        self._device.use.child = None
        if self._device.group is not None:
            self._device.group.enter()
        return outcome


def start_profile(device: Device, order: ProfileOrder, fetch: Fetch, *, seconds: float) -> ProfileJob | Answered:
    """The job, once its files are there; an answer where the device does not take it."""
    try:
        refusal = device.permission.refusal()
        if refusal is not None:
            raise ExecutionError(f"may not train now: {refusal}")
        fetch_missing(device, order.files, fetch)
        lay_out(device, order.files)
        return ProfileJob(device, order, seconds=seconds)
    except LinkError:
        raise
    except (ProflError, OSError) as error:
        return no_profile(f"declined: {error}")


def no_profile(why: str) -> Answered:
    """The answer of a device that could not be measured."""
    return Answered(document=msgspec.json.encode(ProfileAnswer(status=why)), what=f"no profile: {why}")
