"""From nothing to a trained block and a profile on Debian 12 and 13, by the commands of docs/install.md."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

from device_profiles.errors import ExecutionError
from tools.cross.machines import AARCH64, MACHINES, ROOT
from tools.cross.runner import build
from tools.install import __main__ as tool
from tools.install import roots
from tools.install.roots import command_in, fresh_root

DIST = ROOT / "dist"


@pytest.mark.study
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes roots and enters them: needs root")
@pytest.mark.parametrize("suite", tool.SUITES)
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_wheel_installs_trains_and_profiles_in_a_fresh_root(suite: str, machine: tool.Machine) -> None:
    if not list(DIST.glob(f"profl_edge-*{machine.platform}.whl")):
        pytest.skip("dist has no wheels: make wheels")
    done = tool.install(suite, machine, DIST)
    assert done.installed_bytes < 16 << 20
    # An emulator's own memory grows while it translates what is run.
    assert done.measured_bytes > 0 and (machine.name != platform.machine() or done.measured_bytes <= done.promise_bytes)
    assert re.fullmatch(r"[\d.]+ -> [\d.]+", done.losses)
    home = roots.FOLDER / f"{suite}-{machine.debian}" / "srv" / "board"
    assert hashlib.sha256(_update_of_the_runner(machine, home)).hexdigest() == done.update_sha256


def _update_of_the_runner(machine: tool.Machine, home: Path) -> bytes:
    """What `profl-train` makes of the bundle and the data in `home`, as `device.sh` trains."""
    emulator = [] if machine.name == platform.machine() else [f"qemu-{machine.name}-static"]
    output = home / "runner.safetensors"
    # The root has no /sys, which would tell siblings: the worker had a thread for each processor.
    chosen = ["--block", "1", "--epochs", "1", "--threads", str(len(os.sched_getaffinity(0))), "-o", str(output)]
    data = ["--data", f"npz:{home / 'mine.npz'}"]
    subprocess.run([*emulator, build(machine.name), home / "bundle", *data, *chosen], check=True)
    return output.read_bytes()


def test_every_command_of_a_device_is_in_the_page_on_installing() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    script = (Path(tool.__file__).with_name("device.sh")).read_text()
    commands = [line for line in script.splitlines() if line.startswith(("python3 ", "profl/bin/"))]
    assert len(commands) == 7
    for command in commands:
        words = command.replace("--quiet ", "").removeprefix("profl/bin/")
        if "inspect" not in words:
            assert words.removesuffix(" --profile phone.json") in page, command


def test_a_command_in_a_root_has_no_network_no_privileges_and_nothing_of_this_environment() -> None:
    words = command_in(Path("/somewhere/tree"), "/srv/board", ["sh", "device.sh"])
    assert words[:6] == ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
    assert words[-5:] == ["/somewhere/tree", "/srv/board", "1000", "sh", "device.sh"]
    assert "env -i" in " ".join(words) and '--userspec="$user:$user"' in " ".join(words)


def test_without_an_emulator_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "_EMULATOR", tmp_path / "none")
    monkeypatch.setattr(roots.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutionError, match="apt-get install qemu-user-static"):
        fresh_root("trixie", AARCH64)
    (tmp_path / "qemu-aarch64-static").touch(mode=0o755)
    with pytest.raises(ExecutionError, match="register the emulator"):
        fresh_root("trixie", AARCH64)


def test_without_wheels_it_is_said_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="has no wheel for aarch64; make wheels builds them"):
        tool.install("trixie", AARCH64, tmp_path)
