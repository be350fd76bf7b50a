"""A profile order: the programs of a bundle are measured by `profl-profile`, under the limit of a training."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from device_profiles.errors import ExecutionError, ProflError
from device_profiles.federation import ProfileAnswer, ProfileOrder
from edge_runtime.device.federation.answers import Answered, Fetch
from edge_runtime.device.federation.child import Child
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.files import fetch_missing, lay_out
from edge_runtime.device.fleet_api.errors import LinkError
from edge_runtime.device.limits.endings import Ending, Endings
from edge_runtime.device.limits.processes import Outcome
from edge_runtime.device.machine.readings import memory_information


class ProfileJob:
    """Measuring, from the profiler's start to the profile. A restarted one goes on behind the last program.

    The profiler and what it measures live one after the other under the limit that a training has: it becomes each
    process, and is started again when that has ended.
    """

    def __init__(self, device: Device, order: ProfileOrder, *, seconds: float) -> None:
        self._device = device
        self._deadline = time.monotonic() + seconds
        folder = device.state.task
        self._output = folder / "profile.json"
        self._said, self._complaint = folder / "said.json", folder / "complaint.txt"
        self._endings = Endings(folder / "endings")
        self._endings.clear()
        self._limit_bytes = device.budget()
        settings = device.settings
        threads = min(order.threads, settings.threads or order.threads)
        self._command = [sys.executable, "-P", "-m", "profiler", str(folder / "bundle"), "--name", settings.name]
        self._command += ["--limit", f"{self._limit_bytes}B", "--purpose", "all", "--threads", str(threads)]
        self._command += ["--steps", str(order.steps), "-o", str(self._output), "--json"]
        self._command += ["--endings", str(folder / "endings")]
        device.journal.say("profile", "measures what training takes")
        self._child = self._start()

    @property
    def doing(self) -> str:
        """For people and for the server."""
        return "measures what training takes"

    def poll(self) -> Answered | None:
        """The answer at the end."""
        if not self._child.ended():
            return None if time.monotonic() < self._deadline else self.abandon("took too long")
        outcome = self._end()
        asked = self._endings.asked()
        if asked is not None:
            self._endings.keep(asked, self._ending(outcome))
            self._child = self._start()
            return None
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

    def _start(self) -> Child:
        child = Child(self._command, limit_bytes=self._limit_bytes, said=self._said, complaint=self._complaint)
        self._device.use.child = child
        return child

    def _ending(self, outcome: Outcome) -> Ending:
        return Ending(
            returncode=outcome.returncode,
            limit_kind=outcome.limit_kind,
            oom_kills=outcome.oom_kills,
            cgroup_peak_bytes=outcome.cgroup_peak_bytes,
            output=self._said.read_text(encoding="utf-8", errors="replace"),
            complaint=self._complaint.read_text(encoding="utf-8", errors="replace"),
        )

    def _end(self) -> Outcome:
        self._device.use.child = None
        return self._child.outcome()


def start_profile(
    device: Device, order: ProfileOrder, fetch: Fetch, *, seconds: float, root: Path = Path("/")
) -> ProfileJob | Answered:
    """The job, once its files are there; an answer where the device does not take it, or has no memory free for it."""
    try:
        refusal = device.permission.refusal()
        if refusal is not None:
            raise ExecutionError(f"may not train now: {refusal}")
        needed, free = device.budget(), memory_information(root).get("MemAvailable")
        if free is not None and free < needed:
            raise ExecutionError(
                f"measuring takes {needed >> 20} MB, {free >> 20} MB are available: end other programs"
            )
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
