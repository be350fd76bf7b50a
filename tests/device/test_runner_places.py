"""Where `profl-train` runs: an empty root without a C library, a sandbox that refuses system calls, 64-bit ARM."""

from __future__ import annotations

import ctypes
import platform
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="a bundle is exported with it")
from safetensors.numpy import load_file

from tests.support.native_build import configure
from tests.support.native_build import run as run_tool
from tests.support.runner import Ran, built_runner, run, write_idx
from tools.cross.machines import MACHINES
from tools.cross.runner import build

pytestmark = pytest.mark.timeout(1800)

# set_robust_list and rseq, which a C library calls at its start, and clone3, of its threads.
REFUSED = {"x86_64": (273, 334, 435), "aarch64": (99, 293, 435)}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_TRAP, _ALLOW = 0x00030000, 0x7FFF0000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


@pytest.fixture(scope="module")
def runner() -> Path:
    return built_runner()


@pytest.fixture(scope="module")
def update(runner: Path, cnn_bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("update") / "update.safetensors"
    assert run(runner, *_arguments(cnn_bundle, data), "-o", output).status == 0
    return output.read_bytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx(tmp_path_factory.mktemp("data") / "idx")


def _arguments(bundle: Path, data: Path) -> list[object]:
    return [bundle, "--block", 2, "--data", f"idx:{data}", "--epochs", 2, "--threads", 2]


def test_in_an_empty_root_without_a_c_library(
    runner: Path, cnn_bundle: Path, data: Path, update: bytes, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    shutil.copytree(cnn_bundle, root / "bundle")
    shutil.copytree(data, root / "idx")
    shutil.copy(runner, root / "profl-train")
    enter = ["unshare", "-rm", "sh", "-c", 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"', str(root)]
    if shutil.which("unshare") is None or _ran(*enter, "/profl-train", "--version").status != 0:
        pytest.skip("this user may not make a root of its own (unshare -rm)")
    arguments = map(str, _arguments(Path("/bundle"), Path("/idx")))
    limited = ("--memory-limit", "64MB", "--json")
    ran = _ran(*enter, "/profl-train", *arguments, *limited, "-o", "/update.safetensors")
    assert ran.report()["limit_kind"] == "rlimit"  # no control groups are mounted there
    assert (root / "update.safetensors").read_bytes() == update
    assert not list(root.glob("lib*"))


def _ran(*command: str) -> Ran:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Ran(status=done.returncode, output=done.stdout, errors=done.stderr)


def _sandboxed() -> None:
    """Have the kernel refuse REFUSED with a signal from now on, as Android does in applications."""
    library = ctypes.CDLL(None)
    filters = struct.pack("<HBBI", _LOAD, 0, 0, 0)
    calls = REFUSED[platform.machine()]
    for position, number in enumerate(calls):
        filters += struct.pack("<HBBI", _EQUAL, len(calls) - position, 0, number)
    filters += struct.pack("<HBBI", _RETURN, 0, 0, _ALLOW) + struct.pack("<HBBI", _RETURN, 0, 0, _TRAP)
    program = ctypes.create_string_buffer(filters)
    described = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(filters) // 8, ctypes.addressof(program)))
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or library.prctl(_SECCOMP, _FILTER, described):
        raise OSError("no filter of system calls can be set")


def test_in_a_sandbox_that_refuses_system_calls_with_a_signal(
    runner: Path, cnn_bundle: Path, data: Path, update: bytes, tmp_path: Path
) -> None:
    try:
        other = run(Path(sys.executable), "-c", "", preexec_fn=_sandboxed)
    except subprocess.SubprocessError:
        pytest.skip("this user may not set a filter of system calls")
    assert other.status == -signal.SIGSYS, "the filter refuses what an ordinary program starts with"
    for more in ((), ("--memory-limit", "64MB")):  # with a limit, where a group can be made, in a child
        output = tmp_path / f"{len(more)}.safetensors"
        ran = run(runner, *_arguments(cnn_bundle, data), *more, "-o", output, preexec_fn=_sandboxed)
        assert ran.status == 0, ran.errors
        assert output.read_bytes() == update


def test_what_make_runner_builds_is_compiled_as_what_is_tested(runner: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runner"
    configure(folder, "PROFL_RUNNER=ON")

    def compiled(tree: Path) -> set[str]:
        lines = run_tool(["ninja", "-C", str(tree), "-t", "commands", "profl-train"]).splitlines()
        calls = [line.replace(str(tree), "").split(" ", 1) for line in lines if " -c " in line]
        return {f"{Path(compiler).resolve()} {arguments}" for compiler, arguments in calls}  # c++ is g++

    assert len(compiled(folder)) > 50
    assert compiled(folder) == compiled(runner.parent)


@pytest.mark.study
def test_emulated_64_bit_arm_trains_as_this_machine(
    runner: Path, cnn_bundle: Path, data: Path, update: bytes, tmp_path: Path
) -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None or shutil.which(MACHINES["aarch64"].compiler) is None:
        pytest.skip("needs apt-get install qemu-user-static g++-aarch64-linux-gnu")
    program = build("aarch64")
    made = {}
    for threads in (1, 2):
        output = tmp_path / f"{threads}.safetensors"
        arguments = [*_arguments(cnn_bundle, data)[:-1], threads, "--json", "-o", output]
        report = run(Path(emulator), program, *arguments).report()
        assert report["instruction_set"] == "neon"
        made[threads] = output.read_bytes()
    assert made[1] == made[2]
    (tmp_path / "here.safetensors").write_bytes(update)
    here, there = load_file(tmp_path / "here.safetensors"), load_file(tmp_path / "1.safetensors")
    assert here.keys() == there.keys()
    assert all(abs(here[name] - there[name]).max() < 1e-4 for name in here)
