"""From nothing to a trained block and a profile, in a fresh Debian root, by the commands of docs/install.md.

    python -m tools.install [--suite bookworm] [--machine x86_64] [--dist dist] [-o installs.json]

In each root a user who is not root, without network and control groups, runs `device.sh`. Needs root, mmdebstrap, the
wheels of `make wheels`, and for 64-bit ARM qemu-user-static. It prints sizes, seconds and the digest of the update.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from device_profiles.errors import ExecutionError, ProflError
from device_profiles.files import atomic_file
from tools.cross.machines import MACHINES, ROOT, Machine
from tools.install.roots import FOLDER, USER, command_in, fresh_root

SUITES = ("bookworm", "trixie", "forky")
"""Of Debian: 12 with Python 3.11, 13 with 3.13, and the coming 14 with 3.14."""
_HOME = "srv/board"
_STEP = re.compile(r"^== (\d+) (.+)$", re.MULTILINE)
_EXAMPLES = 256


@dataclass(frozen=True, kw_only=True)
class Install:
    """One root's install: the wheel that pip took, bytes on the disk, seconds by step, and what came out."""

    suite: str
    machine: str
    python: str
    wheel_bytes: int
    installed_bytes: int
    seconds: dict[str, int]
    losses: str
    update_sha256: str
    promise_bytes: int
    measured_bytes: int


def install(suite: str, machine: Machine, dist: Path) -> Install:
    """Install and train in a fresh root. Raises ExecutionError with the last lines where a command fails."""
    _check_wheels(dist, machine)
    root = fresh_root(suite, machine)
    home = root / _HOME
    home.mkdir(parents=True)
    shutil.copytree(bundle(), home / "bundle")
    images, labels = examples()
    np.savez(home / "mine.npz", images=images, labels=labels)
    shutil.copytree(dist, home / "dist")
    shutil.copy(Path(__file__).with_name("device.sh"), home)
    for path in [home, *home.rglob("*")]:
        os.chown(path, USER, USER)
    done = subprocess.run(
        command_in(root, f"/{_HOME}", ["sh", "device.sh"]), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = "\n".join([*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-5:]])
        raise ExecutionError(f"{suite} on {machine.name}: device.sh ended with status {done.returncode}:\n{last}")
    return _result(suite, machine, home, done.stdout)


def _result(suite: str, machine: Machine, home: Path, said: str) -> Install:
    packages = next(home.glob("profl/lib/python3*/site-packages"))
    own = [packages / name for name in ("device_profiles", "edge_runtime", "profiler", "server")]
    with_it = [*own, *packages.glob("profl_edge-*"), *packages.glob("click*"), *packages.glob("msgspec*")]
    tag = next(packages.glob("profl_edge-*.dist-info/WHEEL")).read_text()
    found = re.search(r"^Tag: (\S+)$", tag, re.MULTILINE)
    assert found is not None
    (wheel,) = (home / "dist").glob(f"profl_edge-*-{found[1]}.whl")
    marks = [(int(second), name) for second, name in _STEP.findall(said)]
    seconds = {name: after - second for (second, name), (after, _) in itertools.pairwise(marks)}
    losses = re.search(r"^loss +(\S+ -> \S+)", said, re.MULTILINE)
    cost = json.loads((home / "phone.json").read_text())["costs"][0]
    return Install(
        suite=suite,
        machine=machine.name,
        python=packages.parent.name,
        wheel_bytes=wheel.stat().st_size,
        installed_bytes=sum(_bytes(path) for path in with_it),
        seconds=seconds,
        losses=losses[1] if losses else "",
        update_sha256=hashlib.sha256((home / "update.safetensors").read_bytes()).hexdigest(),
        promise_bytes=cost["predicted_peak_bytes"],
        measured_bytes=cost["measured_peak_bytes"],
    )


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def bundle() -> Path:
    """The bundle that a host copies to the device."""
    folder = FOLDER / "bundle"
    if not folder.exists():
        command = [sys.executable, "-m", "edge_runtime.device", "export", "--model", "cnn", "--input", "1x28x28"]
        made = folder.with_name("bundle.new")
        shutil.rmtree(made, ignore_errors=True)
        subprocess.run([*command, "-o", str(made)], cwd=ROOT, check=True, capture_output=True)
        made.rename(folder)
    return folder


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that a network of a few steps can tell apart."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, _EXAMPLES)
    images = random.integers(0, 64, (_EXAMPLES, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 4] += 128
    return images, labels


def _check_wheels(dist: Path, machine: Machine) -> None:
    if not list(dist.glob(f"profl_edge-*-{machine.platform}.whl")):
        raise ExecutionError(f"{dist} has no wheel for {machine.name}; make wheels builds them")


@click.command()
@click.option("--suite", type=click.Choice(SUITES), multiple=True, help="Default: each.")
@click.option("--machine", type=click.Choice(list(MACHINES)), multiple=True, help="Default: each.")
@click.option("--dist", type=click.Path(path_type=Path), default=Path("dist"), help="Folder of the wheels.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Results to write (JSON).")
def main(suite: tuple[str, ...], machine: tuple[str, ...], dist: Path, output: Path | None) -> None:
    """Install in fresh Debian roots, and print what it took."""
    found = []
    try:
        for name in machine or MACHINES:
            for release in suite or SUITES:
                found.append(install(release, MACHINES[name], dist))
                click.echo(json.dumps(asdict(found[-1])))
    except ProflError as error:
        click.echo(f"install: error: {error}", err=True)
        sys.exit(error.exit_status)
    if output is not None:
        with atomic_file(output) as temporary:
            temporary.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
