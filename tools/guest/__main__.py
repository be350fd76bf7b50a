"""`python -m tools.guest`: limits under control groups of version 2, by a kernel that has no others.

The machines of this project's tests may have version 1; most devices of today have version 2. A virtual machine runs
Debian's kernel and systemd, and in it root runs the tests of limits, and a user who is not root does what
docs/install.md says. Needs root, and of Debian qemu-system-x86, mmdebstrap and e2fsprogs. It takes an hour on two
cores.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
from pathlib import Path

import click
import numpy as np

from device_profiles.errors import ProflError
from tools.cross.machines import ROOT
from tools.guest.machine import FOLDER, Guest

TESTS = (
    *("tests/unit/device/test_device_memory_groups.py", "tests/unit/device/test_device_own_group.py"),
    *("tests/unit/device/test_device_limit_processes.py", "tests/unit/device/test_device_limits.py"),
    *("tests/device/test_container_limits.py", "tests/device/test_runner_limits.py"),
    *("tests/device/test_profile_survival.py",),
)
"""What is about limits of the kernel."""
USER = "board"
DEVICE = FOLDER / "device"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: python -m tools.guest --minutes 90")
@click.argument("tests", nargs=-1)
@click.option("--suite", default="bookworm", show_default=True, help="Release of Debian.")
@click.option("--minutes", type=click.IntRange(min=1), default=90, show_default=True, help="When it is given up.")
@click.option("--kvm", is_flag=True, help="By the processor itself, where it can; emulated by default.")
@click.option(
    "--script", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run this as root instead."
)
def main(tests: tuple[str, ...], suite: str, minutes: int, kvm: bool, script: Path | None) -> None:
    """Run TESTS (by default those of limits), and a user's trainings, in a virtual machine."""
    try:
        if script is None:
            prepare()
        job = job_of(tests or TESTS) if script is None else script.read_text(encoding="utf-8")
        status = Guest(suite).run(job, seconds=60 * minutes, told=lambda text: click.echo(text, nl=False), kvm=kvm)
    except ProflError as error:
        click.echo(f"guest: error: {error}", err=True)
        sys.exit(error.exit_status)
    sys.exit(status)


def job_of(tests: tuple[str, ...]) -> str:
    """The script of the machine: what a user does, then the tests as root."""
    python = f"{ROOT}/.venv/bin/python"
    user = [str(Path(__file__).with_name("user.sh")), USER, str(DEVICE), python]
    return f"""uname -r; cat /proc/self/cgroup
export PROFL_TEST_RUNNER={shlex.quote(str(DEVICE / "profl-train"))}
sh {shlex.join(user)}
status=$?
{python} -m pytest -p no:cacheprovider {shlex.join(tests)} || status=1
exit $status"""


def prepare() -> None:
    """Make what the machine finds in `DEVICE`: a bundle, examples, and `profl-train`. Raises ExecutionError."""
    from tools.cross.runner import build
    from tools.install.__main__ import bundle, examples

    DEVICE.mkdir(parents=True, exist_ok=True)
    shutil.copytree(bundle(), DEVICE / "bundle", dirs_exist_ok=True)
    images, labels = examples()
    np.savez(DEVICE / "mine.npz", images=images, labels=labels)
    shutil.copy(build(platform.machine()), DEVICE)


if __name__ == "__main__":
    main()
