"""Training where the machine is not as it should be: one line each, or right; and nothing of anybody is destroyed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.device.limits.processes import run_limited
from tests.support.device_commands import Done, profl_edge, start, wait_for

_ROOT = Path(__file__).parents[2]
_TRAIN = "train {bundle} --block 1 --data digits --steps 2 --lr 0.01 --threads 1"


def _shell(script: str, *, private: bool = False) -> Done:
    """Run a script of bash, with `profl-edge` as the program; `private`: with mounts of its own."""
    names = {"profl-edge": "edge_runtime.device", "profl-profile": "profiler", "profl-server": "server"}
    functions = "".join(f'{name}() {{ {sys.executable} -m {module} "$@"; }}; ' for name, module in names.items())
    command = ["bash", "-c", functions + script]
    done = subprocess.run(
        ["unshare", "-m", *command] if private else command,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(status=done.returncode, output=done.stdout, errors=done.stderr)


@pytest.fixture
def mounts() -> None:
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounts of one's own cannot be made here (needs CAP_SYS_ADMIN)")


def _train(bundle: Path) -> str:
    return "profl-edge " + _TRAIN.format(bundle=shlex.quote(str(bundle)))


@pytest.mark.usefixtures("mounts")
def test_the_null_device_stays_and_nothing_lies_beside_it(cnn_bundle: Path) -> None:
    make = "mount -t tmpfs none /mnt; cp -a /dev/null /dev/zero /dev/urandom /mnt/; mount --bind /mnt /dev; "
    done = _shell(f"{make}{_train(cnn_bundle)} -o /dev/null >&2; ls -l /dev", private=True)
    lines = sorted(line.split()[-1] for line in done.output.splitlines()[1:])
    assert lines == ["null", "urandom", "zero"], done
    assert all(line.startswith("c") for line in done.output.splitlines()[1:])


def test_the_standard_output_as_output_is_written_before_the_report(cnn_bundle: Path, tmp_path: Path) -> None:
    done = _shell(f"{_train(cnn_bundle)} -o {tmp_path}/u; {_train(cnn_bundle)} -o /dev/stdout >{tmp_path}/both")
    assert done.errors == ""
    update, both = (tmp_path / "u").read_bytes(), (tmp_path / "both").read_bytes()
    assert both.startswith(update) and b"update         /dev/stdout" in both[len(update) :]


def test_a_link_has_its_lock_and_checkpoint_beside_the_file(cnn_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "u").symlink_to("far/file")
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--lr", 0.001, "--checkpoint-every", 1]
    process = start(*arguments, "--steps", 100000, "-o", tmp_path / "u")
    wait_for(tmp_path / "far" / "file.checkpoint", process)
    assert "another process" in profl_edge(*arguments, "-o", tmp_path / "far" / "file").refusal(2)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["file.checkpoint"]
    assert [path.name for path in tmp_path.iterdir() if path.is_symlink()] == ["u"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_files(cnn_bundle: Path, tmp_path: Path, closed: str) -> None:
    bundle = shlex.quote(str(cnn_bundle))
    assert _shell(f"{_train(cnn_bundle)} -o {tmp_path}/good").status == 0
    for command, made in (
        (f"{_train(cnn_bundle)} -o {tmp_path}/u", "u"),
        (f"{_train(cnn_bundle)} -o {tmp_path}/u --memory-limit 64MB", "u"),
        (f"profl-edge inspect {bundle}", None),
        (f"profl-edge bench {bundle} --steps 1", None),
        (f"profl-profile run {bundle} --block 1 --steps 1 --no-cached-prefix -o {tmp_path}/p.json", "p.json"),
        ("profl-server --help", None),
    ):
        done = _shell(f"{command} {closed}")
        assert done.status == 0, (command, done)
        assert "Traceback" not in done.errors
        if made == "u":
            assert (tmp_path / made).read_bytes() == (tmp_path / "good").read_bytes()
        elif made is not None:
            json.loads((tmp_path / made).read_bytes())


def test_an_output_that_takes_nothing_is_one_line_and_a_reader_that_left_is_none(
    cnn_bundle: Path, tmp_path: Path
) -> None:
    bundle = shlex.quote(str(cnn_bundle))
    for command in (f"{_train(cnn_bundle)} -o {tmp_path}/u", f"profl-edge inspect {bundle}"):
        line = _shell(f"{command} >/dev/full").refusal(1)
        assert "standard output: No space left on device" in line
        left = _shell(f"{command} | true; {command} | head -c 1 >/dev/null")
        assert left.errors == "", left
    assert (tmp_path / "u").is_file()


@pytest.mark.usefixtures("mounts")
def test_without_proc_one_line_says_so(cnn_bundle: Path, tmp_path: Path) -> None:
    for more in ("", " --memory-limit 64MB"):
        done = _shell(f"mount -t tmpfs none /proc; {_train(cnn_bundle)}{more} -o {tmp_path}/u", private=True)
        assert "mount /proc" in done.refusal(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("mounts")
def test_a_full_temporary_folder_is_named(cnn_bundle: Path, tmp_path: Path) -> None:
    small = f"mount -t tmpfs -o size=1m none {tmp_path}; export TMPDIR={tmp_path}; "
    done = _shell(f"{small}profl-edge train {cnn_bundle} --block 1 --data mnist-5k --steps 1", private=True)
    line = done.refusal(2)
    assert f"{tmp_path}: No space left on device" in line and "TMPDIR" in line


def test_a_cache_folder_that_cannot_be_made_is_named(cnn_bundle: Path) -> None:
    command = f"profl-edge train {cnn_bundle} --block 2 --data digits --steps 1 --cache-prefix"
    for made, named in (("HOME=/proc XDG_CACHE_HOME= ", "--cache-dir /proc/.cache"), ("HOME= XDG_CACHE_HOME= ", "")):
        done = _shell(f"export {made}; {command}")
        assert done.status in (0, 2) and "Traceback" not in done.errors
        if named:
            assert named in done.refusal(2)


@pytest.mark.parametrize("source", ["clock", "modes"])
def test_a_clock_of_1970_and_a_file_system_without_modes_train_all_the_same(
    cnn_bundle: Path, tmp_path: Path, source: str
) -> None:
    calls = {
        "clock": "#define _GNU_SOURCE\n#include <time.h>\n#include <dlfcn.h>\ntime_t time(time_t* p)"
        "{ if (p) *p = 5; return 5; }\nint clock_gettime(clockid_t c, struct timespec* t)"
        '{ int (*f)(clockid_t, struct timespec*) = dlsym(RTLD_NEXT, "clock_gettime"); int r = f(c, t);'
        " if (c == CLOCK_REALTIME) t->tv_sec = 5; return r; }\n",
        "modes": "#include <errno.h>\n#include <sys/types.h>\n"
        "int fchmod(int f, mode_t m) { errno = EPERM; return -1; }\n"
        "int chmod(const char* p, mode_t m) { errno = EPERM; return -1; }\n"
        "int fchmodat(int d, const char* p, mode_t m, int f) { errno = EPERM; return -1; }\n",
    }
    (tmp_path / "calls.c").write_text(calls[source])
    built = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", tmp_path / "calls.so", tmp_path / "calls.c", "-ldl"], check=False
    )
    assert built.returncode == 0
    preload = f"export LD_PRELOAD={tmp_path}/calls.so; "
    profile = f"profl-profile run {cnn_bundle} --block 1 --steps 1 --no-cached-prefix -o {tmp_path}/p.json >/dev/null"
    done = _shell(f"{preload}{_train(cnn_bundle)} -o {tmp_path}/u >/dev/null && {profile}")
    assert done.status == 0, done
    assert (tmp_path / "u").is_file() and (tmp_path / "p.json").is_file()


@pytest.mark.parametrize("most", [5, 6, 8])  # with fewer, Python does not find an editable installation
def test_few_open_files_are_one_line_or_enough(cnn_bundle: Path, tmp_path: Path, most: int) -> None:
    done = _shell(f"ulimit -n {most}; {_train(cnn_bundle)} -o {tmp_path}/u")
    if done.status:
        done.refusal(done.status)
        assert not (tmp_path / "u").exists()


def test_few_processes_are_one_line(cnn_bundle: Path, tmp_path: Path) -> None:
    group = Path(f"/sys/fs/cgroup/pids/profl-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "pids.max").write_text("3")
    except OSError:
        pytest.skip("a control group of version 1 for pids cannot be made here")
    enter = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -m "
    try:
        profile = f"profiler run {cnn_bundle} --block 1 --steps 1 --no-cached-prefix -o {tmp_path}/p.json"
        done = _shell(enter + profile)
        assert done.status == 1 and "allow more (ulimit -u, pids.max)" in done.errors.splitlines()[-1], done
        assert "Traceback" not in done.errors and "OpenBLAS" not in done.errors
        train = _TRAIN.format(bundle=cnn_bundle).replace("--threads 1", "--threads 8")
        assert "give fewer --threads" in _shell(f"{enter}edge_runtime.device {train}").refusal(1)
    finally:
        group.rmdir()


def _memory_folder(mounted: Path) -> Path:
    if not mounted.is_dir() or "tmpfs" not in subprocess.check_output(["stat", "-f", "-c", "%T", mounted], text=True):
        pytest.skip(f"{mounted} is no file system in memory here")
    folder = mounted / f"profl-test-{os.getpid()}"
    folder.mkdir()
    return folder


def test_outputs_in_memory_are_a_part_of_the_promise(cnn_bundle: Path, tmp_path: Path) -> None:
    folder = _memory_folder(Path("/dev/shm"))
    try:
        arguments = ["train", cnn_bundle, "--block", 3, "--data", "digits", "--steps", 30, "--lr", 0.001]
        arguments += ["--threads", 1, "--checkpoint-every", 5, "--json", "-o"]
        disk = profl_edge(*arguments, tmp_path / "u").report()
        memory = profl_edge(*arguments, folder / "u").report()
        update = (folder / "u").stat().st_size
        counted = memory["predicted_peak_bytes"] - disk["predicted_peak_bytes"]
        # Two checkpoints, each with the momentum beside the parameters: about four times the update.
        assert 3 * update < counted + (1 << 19) and counted - (1 << 19) < 5 * update
        cached = ["train", cnn_bundle, "--block", 2, "--data", "digits", "--steps", 1, "--cache-prefix"]
        line = profl_edge(*cached, "--cache-dir", folder, "--memory-limit", "14MB").refusal(2)
        assert "MB of it are files in memory: keep them on a disk" in line
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)


def test_a_limit_with_outputs_in_memory_kills_nothing(cnn_bundle: Path) -> None:
    folder = _memory_folder(Path("/dev/shm"))
    try:
        arguments = ["train", cnn_bundle, "--block", 3, "--data", "digits", "--steps", 30, "--lr", 0.001]
        arguments += ["--threads", 1, "--checkpoint-every", 5, "-o", folder / "u"]
        promised = int(profl_edge(*arguments, "--json").report()["predicted_peak_bytes"])
        outcome = run_limited(["true"], limit_bytes=64 << 20)
        report = profl_edge(*arguments, "--json", "--memory-limit", f"{promised + (2 << 20)}B").report()
        assert report["limit_kind"] == outcome.limit_kind and outcome.oom_kills == 0
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)


def test_a_checkpoint_with_damaged_bytes_is_refused_wherever_they_are(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "u"
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--lr", 0.001, "--steps", 100000, "-o", output]
    process = start(*arguments, "--checkpoint-every", 5)
    checkpoint = tmp_path / "u.checkpoint"
    wait_for(checkpoint, process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    good = checkpoint.read_bytes()
    # A byte of the last tensor, of the first, and a digit of how far it was.
    for position in (len(good) - 1, len(good) // 2, good.index(b'\\"steps\\":') + len(b'\\"steps\\":')):
        checkpoint.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        damaged = checkpoint.read_bytes()
        line = profl_edge(*arguments, "--resume").refusal(2)
        assert "u.checkpoint: is damaged" in line and "omit --resume to start again" in line
        assert checkpoint.read_bytes() == damaged and not output.exists()
    checkpoint.write_bytes(good.replace(b"profl_sha256", b"other_sha256"))
    assert "has no digest" in profl_edge(*arguments, "--resume").refusal(2)


def test_a_damaged_update_is_no_weights(cnn_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "u"
    arguments = ["train", cnn_bundle, "--block", 1, "--data", "digits", "--steps", 1, "--lr", 0.01]
    assert profl_edge(*arguments, "-o", output).status == 0
    raw = bytearray(output.read_bytes())
    raw[-3] ^= 4
    output.write_bytes(raw)
    assert "u: is damaged" in profl_edge("eval", cnn_bundle, "--data", "digits", "--weights", output).refusal(2)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_damaged_rows_of_a_cache_are_computed_again(cnn_bundle: Path, tmp_path: Path, dtype: str) -> None:
    arguments = ["train", cnn_bundle, "--block", 2, "--data", "digits", "--steps", 20, "--lr", 0.01, "--threads", 1]
    arguments += ["--cache-prefix", "--cache-prefix-dtype", dtype, "--cache-dir", tmp_path / "c", "--json", "-o"]
    first = profl_edge(*arguments, tmp_path / "first").report()
    (cache,) = (tmp_path / "c").iterdir()
    good = cache.read_bytes()
    raw = np.frombuffer(good, np.uint8).copy()
    raw[len(raw) // 2] ^= 64
    cache.write_bytes(raw.tobytes())
    again = profl_edge(*arguments, tmp_path / "again").report()
    assert again["cache_filled_examples"] == first["cache_filled_examples"] > 0
    assert cache.read_bytes() == good
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
    assert profl_edge(*arguments, tmp_path / "third").report()["cache_filled_examples"] == 0


def test_what_replaced_a_file_is_a_file(cnn_bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    line = profl_edge("train", cnn_bundle, "--block", 1, "--data", "digits", "-o", tmp_path / "pipe").refusal(2)
    assert "is a named pipe" in line and stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
