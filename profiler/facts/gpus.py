"""GPUs as their driver names them: NVML where the package nvidia-ml-py is there, else the kernel's own files."""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from device_profiles.profile import Gpu
from edge_runtime.device.limits.control_groups import read_text


def find_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """Every NVIDIA GPU this process sees; empty without one. Memory and driver are None where nobody tells."""
    nvml = open_nvml() if root == Path("/") else None
    if nvml is None:
        return _from_kernel(root)
    with suppress(Exception):  # NVML has an error class for every fault of every driver; none of them is ours
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(
                name=_text(nvml.nvmlDeviceGetName(handle)),
                memory_total_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                driver=driver,
            )
            for handle in handles
        )
    return ()


def process_bytes(pid: int, *, nvml: Any = None) -> int | None:
    """GPU memory that NVML charges to a process, on all GPUs; None where it does not tell."""
    nvml = nvml if nvml is not None else open_nvml()
    if nvml is None:
        return None
    with suppress(Exception):  # as above
        used = [
            int(process.usedGpuMemory)
            for i in range(nvml.nvmlDeviceGetCount())
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(i))
            if process.pid == pid and process.usedGpuMemory is not None
        ]
        return sum(used) if used else None
    return None


def open_nvml() -> Any:
    """The initialised module `pynvml`, None without the package (extra `cuda`), a driver or a GPU."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # ImportError, or one of NVML's many
        return None
    return nvml


def _from_kernel(root: Path) -> tuple[Gpu, ...]:
    """`/proc/driver/nvidia/gpus/*/information` names the model; the kernel does not tell the memory."""
    driver = None
    for word in read_text(root / "proc/driver/nvidia/version").split():
        if word.replace(".", "").isdigit() and "." in word:
            driver = word
            break
    found = []
    with suppress(OSError):
        for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
            fields = dict(line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
            if fields.get("Model", "").strip():
                found.append(Gpu(name=fields["Model"].strip(), driver=driver))
    return tuple(found)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
