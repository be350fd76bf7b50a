"""How processes ended that took the place of whoever asked for them.

A profiler that waits for what it measures takes memory beside it. Where there is none to spare, it writes down what it
asks for and becomes that process; who started it keeps how that ended, and starts it again, to read it and go on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from device_profiles.contract import LimitKind
from device_profiles.files import read_json, write_json
from edge_runtime.device.limits.processes import Outcome

_ASKED = "asked"


class Ending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An ended process: the fields of `Outcome`, and what it said on both of its streams."""

    TITLE = "ending of a process"

    returncode: int
    limit_kind: LimitKind
    oom_kills: int
    cgroup_peak_bytes: int | None
    output: str
    complaint: str

    @property
    def outcome(self) -> Outcome:
        """Without what it said."""
        return Outcome(
            returncode=self.returncode,
            limit_kind=self.limit_kind,
            oom_kills=self.oom_kills,
            cgroup_peak_bytes=self.cgroup_peak_bytes,
        )


class Endings:
    """Those in a folder, by the names under which they were asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Forget all of them."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def find(self, name: str) -> Ending | None:
        """That of a process; None where it has not ended yet, or nobody kept how."""
        path = self._path(name)
        return read_json(path, Ending) if path.exists() else None

    def ask(self, name: str) -> None:
        """Whoever calls this becomes the process of this name now."""
        (self._folder / _ASKED).write_text(name, encoding="utf-8")

    def asked(self) -> str | None:
        """The name of the process that was asked for last; None where none was since the last one was kept."""
        path = self._folder / _ASKED
        return path.read_text(encoding="utf-8") if path.exists() else None

    def keep(self, name: str, ending: Ending) -> None:
        """Keep how the process of this name ended, which is asked for no more."""
        write_json(self._path(name), ending)
        (self._folder / _ASKED).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
