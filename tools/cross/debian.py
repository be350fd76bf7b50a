"""Packages of a Debian release for any machine, downloaded and unpacked, without installing them here.

They come from the mirror that this machine's own apt uses, and are checked by the keys of its keyring.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from device_profiles.errors import ExecutionError

_MIRROR = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian"]


def unpacked(folder: Path, *, suite: str, architecture: str, packages: list[str]) -> Path:
    """`folder`, which holds the files of these packages; they are downloaded unless they are there.

    Raises:
        ExecutionError: apt cannot be asked, or has no such package.
    """
    if folder.exists():
        return folder
    state = folder.with_name(f"{folder.name}.apt")
    fresh = folder.with_name(f"{folder.name}.new")
    for made in (state, fresh):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
    options = _options(state, suite, architecture)
    _apt([*options, "update"], state)
    _apt([*options, "download", *packages], state)
    for archive in sorted(state.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(fresh)], check=True)
    shutil.rmtree(state)
    fresh.rename(folder)
    return folder


def mirror() -> str:
    """The address of the mirror of Debian that apt uses here.

    Raises:
        ExecutionError: there is no apt, or it uses none.
    """
    found = _apt(_MIRROR, Path.cwd()).split()
    if not found:
        raise ExecutionError("apt of this machine uses no mirror of Debian; build wheels on Debian 12 or newer")
    return found[0]


def _options(state: Path, suite: str, architecture: str) -> list[str]:
    sources = state / "sources.list"
    sources.write_text(f"deb {mirror()} {suite} main\n")
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    chosen = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": state / "lists",
        "Dir::State::Status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    return [part for name, value in chosen.items() for part in ("-o", f"{name}={value}")]


def _apt(arguments: list[str], folder: Path) -> str:
    if shutil.which("apt-get") is None:
        raise ExecutionError("there is no apt-get, which brings Python's headers; build wheels on Debian 12 or newer")
    environment = {**os.environ, "LC_ALL": "C"}
    command = ["apt-get", "-qq", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExecutionError(f"apt-get {arguments[-1]} failed ({reason}); check the network")
    return done.stdout
