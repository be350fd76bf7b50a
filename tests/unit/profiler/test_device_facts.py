"""Facts of containers and small boards, from fake roots: read where told, None where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_profiles.profile import Device, DeviceProfile, Gpu, Measurement
from edge_runtime.device.limits.control_groups import cpu_quota, memory_limit
from profiler.facts.device_facts import describe_device
from profiler.facts.gpus import find_gpus, process_bytes


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _describe(root: Path) -> Device:
    device = describe_device("box", limit_bytes=None, limit_kind="none", root=root)
    profile = DeviceProfile(
        device=device,
        software={},
        runtime="native",
        model="m",
        bundle_sha256="0" * 64,
        measurement=Measurement(repetitions=1, steps=1, warmup_steps=0, threads=1, measured_at="2026-01-01"),
        costs=(),
    )
    profile.check("facts")  # whatever a device says of itself makes a profile that can be read
    return device


def test_a_board_without_cgroups_names_itself_in_the_device_tree(tmp_path: Path) -> None:
    _write(tmp_path, "proc/cpuinfo", "processor : 0\nBogoMIPS : 38.40\n")
    _write(tmp_path, "proc/device-tree/model", "Example Board 3 Model B\0")
    _write(tmp_path, "proc/meminfo", "MemTotal: 948304 kB\nMemAvailable: 700000 kB\nSwapTotal: 102396 kB\n")
    device = _describe(tmp_path)
    assert device.cpu_model == "Example Board 3 Model B"
    assert device.memory_total_bytes == 948304 * 1024 and device.swap_total_bytes == 102396 * 1024
    assert device.cpu_quota is None and memory_limit(tmp_path) is None
    assert device.huge_pages is None and device.battery_charging is None and device.gpus == ()


def test_a_container_of_version_2_sees_its_quota_and_limit_at_the_mount(tmp_path: Path) -> None:
    # The path is the host's; inside of the container only the mount itself exists.
    _write(tmp_path, "proc/self/cgroup", "0::/system.slice/docker-4f.scope\n")
    _write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000\n")
    _write(tmp_path, "sys/fs/cgroup/memory.max", "268435456\n")
    assert cpu_quota(tmp_path) == 1.5
    limit = memory_limit(tmp_path)
    assert limit is not None and (limit.size_bytes, limit.kind) == (268435456, "cgroup-v2")
    assert _describe(tmp_path).cpu_quota == 1.5


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("3:cpu,cpuacct:/box", {"cpu/box/cpu.cfs_quota_us": "50000", "cpu/box/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpu:/box", {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, None),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
        ("0::/a", {"a/cpu.max": "many words 0"}, None),
        ("0::/a", {"a/cpu.max": "100 0"}, None),
        ("garbage", {}, None),
        ("", {}, None),
    ],
)
def test_quotas_of_both_versions(groups: str, files: dict[str, str], expected: float | None, tmp_path: Path) -> None:
    _write(tmp_path, "proc/self/cgroup", groups + "\n")
    for name, text in files.items():
        _write(tmp_path, f"sys/fs/cgroup/{name}", text + "\n")
    assert cpu_quota(tmp_path) == expected


def test_a_restricted_proc_makes_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    device = _describe(tmp_path)
    assert (device.cpu_model, device.memory_total_bytes, device.huge_page_bytes) == (None, None, None)


def test_a_battery_that_discharges(tmp_path: Path) -> None:
    for name, text in (("type", "Battery"), ("capacity", "104"), ("status", "Discharging")):
        _write(tmp_path, f"sys/class/power_supply/BAT1/{name}", text)
    _write(tmp_path, "sys/class/power_supply/AC/type", "Mains")
    device = _describe(tmp_path)
    # Some batteries claim more than they can hold.
    assert (device.battery_percent, device.battery_charging) == (100.0, False)


def test_available_memory_above_the_total_is_cut(tmp_path: Path) -> None:
    _write(tmp_path, "proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 1200 kB\nHugepagesize: 2048 kB\n")
    _write(tmp_path, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    device = _describe(tmp_path)
    assert device.memory_available_bytes == device.memory_total_bytes == 1000 * 1024
    assert (device.huge_pages, device.huge_page_bytes) == ("madvise", 2 << 20)


def test_names_that_cannot_be_printed_do_not_make_a_profile_unreadable(tmp_path: Path) -> None:
    _write(tmp_path, "proc/cpuinfo", "model name : Evil\x1b[31m CPU\n")
    assert _describe(tmp_path).cpu_model == "Evil[31m CPU"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("AMD EPYC", "AMD EPYC (family 26, model 2)"),
        ("AMD EPYC 9R45", "AMD EPYC 9R45"),
        ("Intel(R) Core(TM) i5", "Intel(R) Core(TM) i5"),
    ],
)
def test_a_name_that_only_says_the_make_gets_family_and_model(tmp_path: Path, name: str, told: str) -> None:
    _write(tmp_path, "proc/cpuinfo", f"cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: {name}\n")
    assert _describe(tmp_path).cpu_model == told


def test_without_nvml_a_gpu_is_named_by_the_kernel_and_its_memory_is_unknown(tmp_path: Path) -> None:
    _write(tmp_path, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n")
    _write(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t NVIDIA Example\nIRQ: 33\n")
    assert find_gpus(tmp_path) == (Gpu(name="NVIDIA Example", driver="550.54.15"),)


class _FakeNvml:
    """What NVML answers for two processes on one GPU; the second one's memory is hidden, as in containers."""

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[object]:
        process = type("Process", (), {})
        first, second = process(), process()
        first.pid, first.usedGpuMemory = 7, 900
        second.pid, second.usedGpuMemory = 8, None
        return [first, second]


def test_memory_that_the_driver_charges_to_a_process_is_none_where_it_does_not_tell() -> None:
    assert process_bytes(7, nvml=_FakeNvml()) == 900
    assert process_bytes(8, nvml=_FakeNvml()) is None
    assert process_bytes(9, nvml=_FakeNvml()) is None
    assert process_bytes(7, nvml=object()) is None
