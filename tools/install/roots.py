"""Debian roots to install in: fresh ones, with nothing of this machine, for this processor or an emulated one."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from device_profiles.errors import ExecutionError
from tools.cross.debian import mirror
from tools.cross.machines import MACHINES, ROOT, Machine

FOLDER = ROOT / "build" / "roots"
_EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
_PACKAGES = ["python3-venv"]
_UNPACKED = ["base-files", "bash", "coreutils", "dash", "libc-bin", "libstdc++6", *_PACKAGES]
_CONFIGURED = ["*/python3*/__pycache__/*", "./etc/ssl/certs/*"]
USER = 1000
"""Who installs and trains there: nobody's user, and not root."""


def fresh_root(suite: str, machine: Machine) -> Path:
    """A root of this release in which nothing was installed yet but what docs/install.md asks for.

    It is made once and copied for every use. Of another processor the packages are unpacked and not configured: under
    emulation their scripts take half an hour. Raises ExecutionError where a tool is missing or fails.
    """
    _check_emulator(machine)
    archive = _archive(suite, machine)
    root = FOLDER / f"{suite}-{machine.debian}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    execute(["tar", "--numeric-owner", "-xf", str(archive), "-C", str(root)])
    if machine.name != platform.machine():
        # What configuring would have made is the same on all machines: bytecode, without which an emulated Python
        # compiles its library again at every start, for minutes, and the certificates that Debian's pip reads.
        own = _archive(suite, MACHINES[platform.machine()])
        execute(["tar", "--numeric-owner", "-xf", str(own), "-C", str(root), "--wildcards", *_CONFIGURED])
    return root


def _archive(suite: str, machine: Machine) -> Path:
    """The packed root, made unless it is there."""
    emulated = machine.name != platform.machine()
    variant, packages = ("extract", _UNPACKED) if emulated else ("apt", _PACKAGES)
    return packed(FOLDER / f"{suite}-{machine.debian}.tar", suite, machine, variant=variant, packages=packages)


def packed(archive: Path, suite: str, machine: Machine, *, variant: str, packages: Sequence[str]) -> Path:
    """`archive`, a packed root with these packages; mmdebstrap makes it unless it is there. Raises ExecutionError."""
    if archive.exists():
        return archive
    need("mmdebstrap", "mmdebstrap")
    archive.parent.mkdir(parents=True, exist_ok=True)
    made = archive.with_suffix(".new.tar")
    options = [f"--variant={variant}", f"--include={','.join(packages)}", f"--architectures={machine.debian}"]
    # The release to come says until when it is valid, and a mirror may be a snapshot: signatures are checked anyway.
    options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    execute(["mmdebstrap", "--quiet", "--mode=root", *options, suite, str(made), mirror()])
    made.rename(archive)
    return archive


def command_in(root: Path, folder: str, command: list[str], *, user: int = USER) -> list[str]:
    """The command line that runs `command` as `user` in `folder` of `root`: with a /proc and a /dev of its own, without
    control groups, without network, and ended with it."""
    inside = 'mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; cd /; root=$0; folder=$1; user=$2; shift 2; '
    inside += 'exec chroot --userspec="$user:$user" "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/srv/board '
    inside += 'LC_ALL=C.UTF-8 sh -c \'cd "$0" && exec "$@"\' "$folder" "$@"'
    alone = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
    return [*alone, "sh", "-euc", inside, str(root), folder, str(user), *command]


def _check_emulator(machine: Machine) -> None:
    if machine.name == platform.machine() or _EMULATOR.exists():
        return
    need("qemu-aarch64-static", "qemu-user-static")
    raise ExecutionError(
        f"{machine.name} is not emulated: the kernel has no {_EMULATOR.name} in binfmt_misc; as root, mount it "
        "(mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc) and register the emulator: "
        "cat /usr/lib/binfmt.d/qemu-aarch64.conf > /proc/sys/fs/binfmt_misc/register"
    )


def need(program: str, package: str) -> None:
    """Raise ExecutionError where a program is missing that this package of Debian brings."""
    if shutil.which(program) is None:
        raise ExecutionError(f"{program} is not installed: apt-get install {package}")


def execute(command: list[str]) -> None:
    """Run a command; raises ExecutionError with its last line where it fails."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExecutionError(f"{command[0]} failed: {reason}")
