"""A virtual machine with a kernel of its own: Debian's, with systemd and control groups of version 2 alone."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from device_profiles.errors import ExecutionError
from tools.cross.machines import MACHINES, ROOT
from tools.install.roots import execute, need, packed

FOLDER = ROOT / "build" / "guest"
_PACKAGES = ("linux-image-amd64", "systemd-sysv", "dbus", "libpam-systemd", "libgomp1", "sudo")
_DISK = "3G"
_MEMORY = "4096"
_POLL_SECONDS = 0.5
_UNIT = """[Unit]
Description=The job of the host
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /job; mount -t 9p -o {options} job /job; sh /job/begin.sh'
[Install]
WantedBy=multi-user.target
"""
_MOUNT = "trans=virtio,version=9p2000.L,msize=1048576"


class Guest:
    """The machine of one release of Debian; its disk is made once, and what a job writes there is forgotten.

    Raises ExecutionError where a tool is missing or fails.
    """

    def __init__(self, suite: str = "bookworm") -> None:
        self._folder = FOLDER / suite
        self._suite = suite

    def run(self, script: str, *, seconds: float, told: Callable[[str], None], kvm: bool = False) -> int:
        """Run a script of the shell as root, in this folder; its exit status. The repository and this Python are there
        under their names, read-only. What it prints is told as it comes.

        It is emulated, unless `kvm` is asked for: ten to twenty times slower, but on any machine. Raises ExecutionError
        where it has not ended after `seconds`.
        """
        need("qemu-system-x86_64", "qemu-system-x86")
        self._make_disk()
        job = self._folder / "job"
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir()
        shared = {"repository": ROOT, "python": Path(sys.base_prefix)}
        (job / "begin.sh").write_text(_begin(shared))
        (job / "run.sh").write_text(f"cd '{ROOT}'\nexport HOME=/root PYTHONDONTWRITEBYTECODE=1\n{script}\n")
        (job / "said").touch()
        console = self._folder / "console.txt"
        with console.open("wb") as log:
            machine = subprocess.Popen(self._command(shared, kvm=kvm), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _follow(machine, job / "said", seconds, told)
        finally:
            machine.kill()
            machine.wait()
        status = job / "status"
        if not status.is_file():
            raise ExecutionError(f"the machine ended without a word, or not in {seconds:g} s; see {console}")
        return int(status.read_text())

    def _command(self, shared: dict[str, Path], *, kvm: bool) -> list[str]:
        chosen = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
        kernel = ["-kernel", str(self._folder / "vmlinuz"), "-initrd", str(self._folder / "initrd.img")]
        disk = ["-drive", f"file={self._folder / 'disk.img'},if=virtio,format=raw,snapshot=on"]
        folders = [f"local,path={at},mount_tag={tag},security_model=none,readonly=on" for tag, at in shared.items()]
        folders.append(f"local,path={self._folder / 'job'},mount_tag=job,security_model=none")
        return [
            *("qemu-system-x86_64", *chosen, "-smp", "2", "-m", _MEMORY, "-nographic", "-no-reboot", "-nic", "none"),
            *(*kernel, "-append", "root=/dev/vda rw console=ttyS0 quiet", *disk),
            *(word for folder in folders for word in ("-virtfs", folder)),
        ]

    def _make_disk(self) -> None:
        disk = self._folder / "disk.img"
        if disk.exists():
            return
        need("mke2fs", "e2fsprogs")
        machine = MACHINES[platform.machine()]
        archive = packed(self._folder / "root.tar", self._suite, machine, variant="important", packages=_PACKAGES)
        root = self._folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        execute(["tar", "--numeric-owner", "-xf", str(archive), "-C", str(root)])
        units = root / "etc" / "systemd" / "system"
        (units / "host-job.service").write_text(_UNIT.format(options=_MOUNT))
        wants = units / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "host-job.service").symlink_to("../host-job.service")
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.copy(found, self._folder / name)
        made = disk.with_suffix(".new")
        made.unlink(missing_ok=True)
        execute(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(made), _DISK])
        shutil.rmtree(root)
        made.rename(disk)


def _begin(shared: dict[str, Path]) -> str:
    """The script that the machine starts with. A user who is not root comes to what is shared as well."""
    lines = ["chmod go+rx /root"]
    lines += [f"mkdir -p '{at}' && mount -t 9p -o {_MOUNT},ro,cache=loose {tag} '{at}'" for tag, at in shared.items()]
    lines += ["sh /job/run.sh > /job/said 2>&1", "echo $? > /job/status", "sync", "systemctl poweroff --force"]
    return "\n".join(lines) + "\n"


def _follow(machine: subprocess.Popen[bytes], said: Path, seconds: float, told: Callable[[str], None]) -> None:
    """Tell what is said until the machine ends, or its time."""
    until = time.monotonic() + seconds
    with said.open(encoding="utf-8", errors="replace") as lines:
        while True:
            ended = machine.poll() is not None or time.monotonic() > until
            if text := lines.read():
                told(text)
            if ended:
                return
            time.sleep(_POLL_SECONDS)
