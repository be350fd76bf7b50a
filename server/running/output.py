"""The folder of a run: what may lie there when it starts, and what a start that trains nothing leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from device_profiles.errors import FormatError, NothingHeldError, UsageError
from device_profiles.files import atomic_file, read_json
from server.rounds.run_state import STATE_NAME, RunFolder, RunState

_SETTINGS = "settings.sha256"
_OURS = frozenset(
    {
        "bundle",
        "calibration",
        "candidate.safetensors",
        "client_state",
        "clients",
        "data",
        "federation.json",
        "fleet.json",
        "movement",
        "plan.json",
        "plans",
        "profiles",
        "progress.log",
        "promises.json",
        "rounds.jsonl",
        "server_optimizer",
        "settings.sha256",
        "state.json",
        "steps.json",
        "updates",
        "weights",
        "whole_bundle",
        "whole_network.json",
    }
)
"""What a run's folder holds before the run has ended."""


def leftovers_in(output: Path, settings: str, *, resume: bool) -> list[Path]:
    """What must go from `output` before this run starts there: what another start left that trained nothing.

    Raises UsageError where the folder is not a run's, or is that of a run that has rounds and is not continued.
    """
    found = sorted(output.iterdir()) if output.exists() else []
    if not found:
        return []
    path = output / _SETTINGS
    if not path.is_file():
        raise UsageError(f"-o {output}: is not a run's folder; choose another one")
    same = path.read_text(encoding="ascii", errors="replace").strip() == settings
    if _has_rounds(output):
        if not resume:
            raise UsageError(f"-o {output}: exists; continue it with --resume, or choose another folder")
        if not same:
            raise UsageError(f"-o {output}: was started with another fleet file or engine; choose another folder")
    if same:
        return []
    if not all(_is_ours(entry.name) for entry in found):
        raise UsageError(f"-o {output}: contains files that are not a run's; choose another folder")
    return found


def _is_ours(name: str) -> bool:
    """Whether a run makes a file or folder of this name, or was killed while it wrote one."""
    return name in _OURS or any(name.startswith(f".{own}.") for own in _OURS)


def _has_rounds(output: Path) -> bool:
    """Whether anything was trained here; a state that cannot be read is not taken for nothing."""
    if not RunFolder(output).exists:
        return False
    try:
        return read_json(output / STATE_NAME, RunState).rounds_bytes > 0
    except FormatError:
        return True


def write_settings(output: Path, settings: str) -> None:
    """Make the folder that of the run with this digest."""
    output.mkdir(parents=True, exist_ok=True)
    with atomic_file(output / _SETTINGS) as temporary:
        temporary.write_text(settings + "\n", encoding="ascii")


def remove(paths: Iterable[Path]) -> None:
    """Files, links, and folders with all that is in them."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def nothing_left_without_work(output: Path) -> Iterator[None]:
    """Leave a folder as it was where it was new or empty and no device holds anything of the model: all that was
    written for this fleet file is of no use to the next one. A folder with rounds stays."""
    there = output.is_dir()
    empty = not there or not any(output.iterdir())
    try:
        yield
    except NothingHeldError:
        if empty and output.is_dir() and not _has_rounds(output):
            remove(sorted(output.iterdir()))
            if not there:
                output.rmdir()
        raise
