"""What the device's install takes on disk: the wheel and its dependencies in a fresh environment, without Python.

    python -m tools.bench.install_size [--wheel dist/profl_edge-....whl]

Without --wheel one is built first. Sizes are what the file system allocates, compiled bytecode included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

if __package__ in (None, ""):  # run by its path instead of with -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from device_profiles.errors import ExecutionError, ProflError

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1 << 20
_SHOWN = 6
_BLOCK_BYTES = 512  # the unit of st_blocks, by POSIX convention


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise ExecutionError(f"{' '.join(command[:4])}: {reason}")


def build_wheel(folder: Path) -> Path:
    """The wheel of this source tree, built into `folder`."""
    _run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)])
    return next(folder.glob("profl_edge-*.whl"))


def installed_bytes(environment: Path) -> dict[str, dict[str, int]]:
    """Bytes on disk of every installed file, by distribution and file."""
    packages = next(environment.glob("lib/python*/site-packages"))
    found: dict[str, dict[str, int]] = {}
    for distribution in distributions(path=[str(packages)]):
        found[distribution.name] = _files(distribution)
    return found


def _files(distribution: Distribution) -> dict[str, int]:
    paths = {str(file): Path(str(file.locate())) for file in distribution.files or []}
    return {name: path.stat().st_blocks * _BLOCK_BYTES for name, path in paths.items() if path.is_file()}


@click.command(epilog="Example: python -m tools.bench.install_size --json")
@click.option("--wheel", type=click.Path(path_type=Path), help="A wheel that is there already.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def install_size(wheel: Path | None, as_json: bool) -> None:
    """Disk space of the device's install, by package, with the largest files."""
    with tempfile.TemporaryDirectory(prefix="profl-install-") as name:
        folder = Path(name)
        if wheel is None:
            click.echo("building the wheel", err=True)
            wheel = build_wheel(folder)
        environment = folder / "environment"
        _run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
        click.echo("installing", err=True)
        python = environment / "bin" / "python"
        _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--compile", str(wheel)])
        found = installed_bytes(environment)
    sizes = {package: sum(files.values()) for package, files in found.items()}
    files = sorted(((size, path) for listed in found.values() for path, size in listed.items()), reverse=True)
    if as_json:
        largest = {path: size for size, path in files[:_SHOWN]}
        click.echo(json.dumps({"total_bytes": sum(sizes.values()), "packages": sizes, "largest_files": largest}))
        return
    click.echo(f"{sum(sizes.values()) / MEGABYTE:8.1f} MB  {wheel.name} and its dependencies, without Python")
    for package, size in sorted(sizes.items(), key=lambda item: -item[1]):
        click.echo(f"{size / MEGABYTE:8.1f} MB    {package}")
    click.echo("largest files:")
    for size, path in files[:_SHOWN]:
        click.echo(f"{size / MEGABYTE:8.1f} MB    {path}")


def main() -> None:
    """Run the command; an error is one line."""
    try:
        install_size()
    except ProflError as error:
        click.echo(f"install_size: error: {error}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
