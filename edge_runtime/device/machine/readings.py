"""Single facts of a machine as seen below `root` (`/`; another one in tests): None where it does not tell."""

from __future__ import annotations

import re
import resource
from contextlib import suppress
from pathlib import Path

from edge_runtime.device.limits.control_groups import read_text

_KILOBYTE = 1 << 10
_UNLIMITED_BYTES = 1 << 53


def memory_information(root: Path) -> dict[str, int]:
    """Bytes by the names of `/proc/meminfo`, of those that are given in kB."""
    found = {}
    for key, text in _key_values(root / "proc/meminfo").items():
        number = text.split()[:1]
        if number and number[0].isdigit():
            found[key] = int(number[0]) * _KILOBYTE
    return found


def cpu_model(root: Path = Path("/")) -> str | None:
    """The processor's name, None where nothing says it.

    x86 says `model name`; ARM boards name themselves in `Model`, `Hardware` or the device tree.

    A virtual machine may say no more than the make ("AMD EPYC"), for processors that differ twofold in speed: family
    and model tell them apart.
    """
    values = _key_values(root / "proc/cpuinfo")
    tree = read_text(root / "proc/device-tree/model").strip("\0 \n")
    found = values.get("model name") or values.get("Model") or values.get("Hardware") or tree
    family, model = values.get("cpu family"), values.get("model")
    if found and family and model and not re.search(r"\d", found):
        found = f"{found} (family {family}, model {model})"
    return "".join(c for c in found if c.isprintable())[:200] or None


def data_limit() -> int | None:
    """Bytes that this process may ask for: the smaller of RLIMIT_AS and RLIMIT_DATA, None without either."""
    limits = []
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY and 0 <= soft < _UNLIMITED_BYTES:
            limits.append(soft)
    return min(limits, default=None)


def huge_pages(root: Path) -> str | None:
    """The kernel's setting of transparent huge pages: `always`, `madvise` or `never`."""
    match = re.search(r"\[(\w+)\]", read_text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return match[1] if match else None


def temperatures(root: Path) -> list[float]:
    """Degrees Celsius, one of each sensor."""
    return [value / 1000.0 for value in numbers_of(root, "sys/class/thermal/thermal_zone*/temp")]


def core_speeds(root: Path) -> dict[int, float]:
    """How fast each logical processor is beside the others, by its number: the kernel's capacity, or else the highest
    clock. Empty where it does not tell, or not of all."""
    numbers = [int(path.name[3:]) for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*")]
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {n: value for n in numbers for value in numbers_of(root, f"sys/devices/system/cpu/cpu{n}/{name}")}
        if speeds and len(speeds) == len(numbers):
            return speeds
    return {}


def numbers_of(root: Path, pattern: str) -> list[float]:
    """The numbers in the files that match `pattern`; files that hold none are left out."""
    values = []
    with suppress(OSError):
        for path in root.glob(pattern):
            with suppress(OSError, ValueError):
                values.append(float(path.read_text()))
    return values


def _key_values(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in read_text(path).splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
