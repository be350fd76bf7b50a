"""Folders that appear whole or not at all, and never in the place of a folder that is not one of the same kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from device_profiles.errors import UsageError
from device_profiles.files import check_place
from device_profiles.outputs import followed, temporary_name, temporary_start

Parts = tuple[str, ...]
"""Patterns of the files that a kind of folder holds, relative to it; the first is the file that it is known by."""

_FILE_MODE = 0o666


def check_output_folder(path: Path, parts: Parts, *, option: str = "-o") -> None:
    """Raise UsageError where no folder can be written at `path`, or one lies there that holds anything else."""
    target = _target(path, option)
    if not os.path.lexists(target):
        check_place(target, option=option)
        return
    if not target.is_dir():
        raise UsageError(f"{option} {path}: is a file; give the name of a folder")
    entries = _entries(target)
    foreign = next((entry for entry in entries if not _is_part(entry, parts)), None)
    if entries and PurePath(parts[0]) not in entries:
        raise UsageError(f"{option} {path}: exists and contains no {parts[0]}; choose another folder")
    if foreign is not None:
        raise UsageError(
            f"{option} {path}: contains {foreign}, which would be removed too; move it away, or choose another folder"
        )
    if entries and not any(entry.suffix == ".pte" for entry in entries):
        raise UsageError(f"{option} {path}: contains a {parts[0]}, but no programs; choose another folder")
    check_place((target if _kept(target) else target.parent) / "file", option=option)


@contextmanager
def atomic_folder(path: Path, parts: Parts) -> Iterator[Path]:
    """Yield a temporary folder; put it in the place of `path` when the body ends, remove it when it raises.

    Raises UsageError where `path` holds anything but `parts`: it is not removed. What is new has the modes that new
    files and folders of this user have.
    """
    check_output_folder(path, parts)
    target = _target(path, "-o")
    kept = target.is_dir() and _kept(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(temporary_name(str(target / target.name if kept else target)))
    temporary.mkdir(0o777)
    try:
        yield temporary
        _set_modes(temporary)
        check_output_folder(path, parts)  # what came into it meanwhile stays as well
        if kept:
            _fill(temporary, target, parts)
        else:
            _replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _target(path: Path, option: str) -> Path:
    """The folder itself, by a name that has a last part."""
    try:
        return Path(os.path.abspath(followed(str(path))))
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror}; choose another place") from None


def _kept(folder: Path) -> bool:
    """Whether the folder stays and only its contents change: it is empty, mounted, or where somebody stands."""
    return not _entries(folder) or folder.is_mount() or folder.samefile(Path.cwd())


def _entries(folder: Path) -> list[PurePath]:
    """Every file below `folder`, and every folder that holds nothing; what a killed export left is not counted."""
    found = []
    for place, folders, files in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if not name.startswith(temporary_start(str(folder / folder.name)))]
        relative = PurePath(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [relative / name for name in (*files, *links)]
        if not files and not folders and place != str(folder):
            found.append(relative)
    return found


def _is_part(entry: PurePath, parts: Parts) -> bool:
    """Patterns alone would also match below other folders."""
    return any(entry.match(part) and len(entry.parts) == len(PurePath(part).parts) for part in parts)


def _replace(temporary: Path, target: Path) -> None:
    """Put a folder in the place of another one, which is removed once the new one has its name."""
    if not target.exists():
        temporary.rename(target)
        return
    old = Path(temporary_name(str(target)))
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(temporary: Path, target: Path, parts: Parts) -> None:
    """Replace what is in `target`. The file that it is known by goes first and comes last."""
    (target / parts[0]).unlink(missing_ok=True)
    for old in target.iterdir():
        if old != temporary:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for new in sorted(temporary.iterdir(), key=lambda entry: entry.name == parts[0]):
        new.rename(target / new.name)
    temporary.rmdir()


def _set_modes(folder: Path) -> None:
    """Some writers make files that only their owner may read: give them the mode of the folder, which is umask's."""
    mode = folder.stat().st_mode & _FILE_MODE
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o777 != mode:
            with suppress(OSError):  # a file system that knows no modes
                path.chmod(mode)
