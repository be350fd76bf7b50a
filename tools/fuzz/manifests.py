"""Fuzz what reads a bundle's manifest: `python -m tools.fuzz.manifests BUNDLE --seconds 60`.

The manifest is damaged at random and used as `profl-edge inspect` and `profl-edge bench` use it, with the programs and
weights of the bundle: each case must end with a result or with one line of an error. A traceback, a crash, a hang or
more memory than a process may have is printed with its seed, and the exit status is 1. Each case is a process.

With `--runner build/sanitize/profl-train` it is that program which trains a step with each of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from device_profiles.contract import MANIFEST_NAME
from device_profiles.errors import ProflError
from edge_runtime.device import _native, cli
from edge_runtime.device.prepare.bundle import open_bundle
from edge_runtime.device.prepare.job import bench_job
from edge_runtime.device.worker.benchmark import bench
from tests.support.mutations import mutated

_SECONDS = 20
_IMAGES = 256
_MEMORY_BYTES = 4 << 30
_REFUSED, _TRACEBACK = 10, 12


def try_manifest(bundle: Path, document: bytes, seed: int) -> str | None:
    """What went wrong, None where it went as it should."""
    (bundle / MANIFEST_NAME).write_bytes(document)
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os._exit(_use(bundle, seed, said.fileno()))
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    if code == _REFUSED:
        return None if text and "\n" not in text else f"not one line: {text!r}"
    return f"exit status {code}: {text[-2000:]}"


def _use(bundle: Path, seed: int, output: int) -> int:
    signal.alarm(_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        with contextlib.redirect_stderr(open(os.devnull, "w")):  # until the process ends
            if cli.main(["inspect", str(bundle)]) > 2:
                raise AssertionError("inspect ended with a status of its own")
        opened = open_bundle(bundle)
        program = random.Random(seed).choice(opened.manifest.programs)
        bench(_native, bench_job(opened, program, steps=1, warmup_steps=0, threads=1, json=True))
    except ProflError as error:
        os.write(output, str(error).encode(errors="replace"))
        return _REFUSED
    except MemoryError:
        os.write(output, b"no memory left")
        return _REFUSED
    except BaseException:  # whatever else is raised is what is looked for
        os.write(output, traceback.format_exc().encode(errors="replace"))
        return _TRACEBACK
    return 0


def try_runner(runner: Path, bundle: Path, document: bytes, data: Path) -> str | None:
    """The same for a training step of `profl-train`, or of a sanitized build of it."""
    (bundle / MANIFEST_NAME).write_bytes(document)
    command = [str(runner), str(bundle), "--block", "1", "--data", f"npz:{data}", "--steps", "1", "--threads", "1"]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end within {_SECONDS} s"
    text = done.stderr.decode(errors="replace").strip()
    if done.returncode in (0, 1, 2) and len(text.splitlines()) == (done.returncode != 0):
        return None
    return f"exit status {done.returncode}: {text[-2000:]}"


def main() -> int:
    """Fuzz for some seconds, or as many cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runner", type=Path, help="a profl-train, which takes images")
    given = parser.parse_args()
    document = (given.bundle / MANIFEST_NAME).read_bytes()
    end, seed, found = time.monotonic() + given.seconds, given.seed, 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(given.bundle, copy)
        data = Path(folder) / "data.npz"
        np.savez(data, images=np.zeros((_IMAGES, 8, 8), np.uint8), labels=np.zeros(_IMAGES, np.int64))
        while time.monotonic() < end and seed < given.seed + given.cases:
            damaged = _numbers_changed(document, seed)
            if given.runner is None:
                complaint = try_manifest(copy, damaged, seed)
            else:
                complaint = try_runner(given.runner, copy, damaged, data)
            if complaint is not None:
                found += 1
                print(f"seed {seed}: {complaint}", flush=True)
            seed += 1
    print(f"{seed - given.seed} manifests, {found} findings")
    return 1 if found else 0


def _numbers_changed(document: bytes, seed: int) -> bytes:
    """Half of the cases change one field of one program to a telling number, the others anything."""
    choose = random.Random(seed)
    if choose.random() < 0.5:
        return mutated(document, seed)
    value = json.loads(document)
    places: list[tuple[Any, Any]] = []
    _collect(value["programs"] if choose.random() < 0.8 else value, places)
    for holder, key in choose.sample(places, choose.choice((1, 1, 2))):
        old = holder[key]
        telling = [0, -1, 1, 2, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**64, -(2**63), old + 1, old - 1, old * 2]
        holder[key] = choose.choice(telling)
    return json.dumps(value).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if isinstance(inner, int) and not isinstance(inner, bool):
            places.append((value, key))
        _collect(inner, places)


if __name__ == "__main__":
    sys.exit(main())
