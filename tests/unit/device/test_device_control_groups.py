"""Memory limits of containers, on machines made of files: version 1, version 2, and both at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.device.limits.control_groups import cpu_quota, memory_limit

_V1 = "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup none rw,memory"
_CPU = "36 31 0:33 {root} /sys/fs/cgroup/cpu rw,relatime - cgroup none rw,cpu"
_V2 = "29 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
_UNIFIED = "41 31 0:38 {root} /sys/fs/cgroup/unified rw,relatime - cgroup2 none rw,memory"
_TMPFS = "31 1 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755"


def _machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        pytest.param("0::/a", _V2.format(root="/"), {"a/memory.high": "500"}, (500, "cgroup-v2"), id="high alone"),
        pytest.param(
            "0::/a", _V2.format(root="/"), {"a/memory.high": "500", "a/memory.max": "400"}, (400, "cgroup-v2"), id="max"
        ),
        pytest.param(
            "4:memory:/docker/4f",
            _V1.format(root="/docker/4f"),
            {"memory/memory.limit_in_bytes": "700"},
            (700, "cgroup-v1"),
            id="a container sees its own group at the mount",
        ),
        pytest.param(
            "4:memory:/docker/4f/inner",
            _V1.format(root="/docker/4f"),
            {"memory/memory.limit_in_bytes": "700", "memory/inner/memory.limit_in_bytes": "600"},
            (600, "cgroup-v1"),
            id="a group inside of a container",
        ),
        pytest.param(
            "4:memory:/a",
            _V1.format(root="/"),
            {
                "memory/a/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/a/memory.stat": "cache 0\nhierarchical_memory_limit 900\ntotal_rss 1",
            },
            (900, "cgroup-v1"),
            id="a parent that is not mounted here",
        ),
        pytest.param(
            "4:memory:/a", _V1.format(root="/"), {"memory/a/memory.limit_in_bytes": str(1 << 62)}, None, id="no limit"
        ),
        pytest.param(
            "4:memory:/a",
            _V1.format(root="/"),
            {"memory/a/memory.limit_in_bytes": str((1 << 62) - 1)},
            ((1 << 62) - 1, "cgroup-v1"),
            id="the highest limit",
        ),
        pytest.param(
            "4:memory:/a",
            "\n".join((_V1.format(root="/"), _CPU.format(root="/"), _UNIFIED.format(root="/"))),
            {
                "memory/a/memory.limit_in_bytes": "700",
                "cpu/a/memory.limit_in_bytes": "1",
                "unified/a/memory.limit_in_bytes": "2",
            },
            (700, "cgroup-v1"),
            id="another controller's hierarchy",
        ),
        pytest.param(
            "4:memory:/a\n0::/b",
            "\n".join((_V1.format(root="/"), _UNIFIED.format(root="/"))),
            {"memory/a/memory.limit_in_bytes": "800", "unified/b/memory.max": "max"},
            (800, "cgroup-v1"),
            id="hybrid, memory in version 1",
        ),
        pytest.param(
            "1:name=systemd:/a\n0::/b",
            _UNIFIED.format(root="/"),
            {"unified/b/memory.max": "300"},
            (300, "cgroup-v2"),
            id="hybrid, memory in version 2",
        ),
        pytest.param(
            "0::/../other", _V2.format(root="/"), {"memory.max": "200"}, (200, "cgroup-v2"), id="outside of the mount"
        ),
        pytest.param(
            "0::/b",
            "\n".join((_TMPFS, _V1.format(root="/"), _UNIFIED.format(root="/"))),
            {"b/memory.max": "1", "memory/b/memory.max": "2", "unified/b/memory.max": "300"},
            (300, "cgroup-v2"),
            id="a group of version 2 is looked for where version 2 is mounted",
        ),
        pytest.param(
            "0::/../other",
            _V2.format(root="/"),
            {"memory.max": "200", "../other/memory.max": "1"},
            (200, "cgroup-v2"),
            id="nothing outside of the mount is looked at",
        ),
        pytest.param(
            "0::/a",
            _V2.format(root="/"),
            {"a/memory.max": "200", "../memory.max": "1"},
            (200, "cgroup-v2"),
            id="nothing above the mount is looked at",
        ),
        pytest.param(
            "0::/host/a",
            _V2.format(root="/docker/4f"),
            {"memory.max": "200", "host/a/memory.max": "1"},
            (200, "cgroup-v2"),
            id="a path of the host, of which another part is mounted",
        ),
        pytest.param(
            "4:memory:/a/b",
            _V1.format(root="/"),
            {
                "memory/a/memory.stat": "hierarchical_memory_limit 100",
                "memory/a/b/memory.stat": "hierarchical_memory_limit 900",
            },
            (900, "cgroup-v1"),
            id="the kernel tells a group its lowest limit",
        ),
        pytest.param(
            "0::/a:b", _V2.format(root="/"), {"a:b/memory.max": "100"}, (100, "cgroup-v2"), id="a colon in a name"
        ),
        pytest.param(
            "0::/a",
            "1 2 0:3 / - cgroup2 none rw\n1 2 0:3 / /sys/fs/cgroup rw\n1 2 0:3 / /sys/fs/cgroup/five - cgroup2 none rw",
            {"five/a/memory.max": "100", "a/memory.max": "1"},
            (100, "cgroup-v2"),
            id="short lines of mounts",
        ),
        pytest.param("0::/a", "half a line - cgroup2", {"a/memory.max": "100"}, (100, "cgroup-v2"), id="odd mounts"),
        pytest.param("a line", "another", {}, None, id="nothing to read"),
    ],
)
def test_the_lowest_limit_counts(
    groups: str, mounts: str, files: dict[str, str], expected: tuple[int, str] | None, tmp_path: Path
) -> None:
    found = memory_limit(_machine(tmp_path, groups, mounts, files))
    assert (None if found is None else (found.size_bytes, found.kind)) == expected


def test_kills_are_counted_in_the_groups_own_file(tmp_path: Path) -> None:
    root = _machine(tmp_path, "0::/a/b", _V2.format(root="/"), {"a/memory.max": "100", "a/b/memory.max": "max"})
    limit = memory_limit(root)
    assert limit is not None and limit.events == root / "sys/fs/cgroup/a/b/memory.events"


def test_a_quota_is_found_where_the_controller_is_mounted(tmp_path: Path) -> None:
    mount = "32 31 0:29 /docker/4f /sys/fs/cgroup/cpu\\040both rw - cgroup cgroup rw,cpu,cpuacct"
    files = {"cpu both/cpu.cfs_quota_us": "150000", "cpu both/cpu.cfs_period_us": "100000"}
    assert cpu_quota(_machine(tmp_path, "1:cpu,cpuacct:/docker/4f", mount, files)) == 1.5


@pytest.mark.parametrize("line", ["", "a line without colons", "3:cpu"])
def test_lines_that_are_no_groups_limit_nothing(line: str, tmp_path: Path) -> None:
    root = _machine(tmp_path, line, "", {})
    assert memory_limit(root) is None and cpu_quota(root) is None


def test_the_least_quota_of_a_group_and_its_parents_counts(tmp_path: Path) -> None:
    files = {"a/cpu.max": "250000 100000", "a/b/cpu.max": "400000 100000"}
    assert cpu_quota(_machine(tmp_path, "0::/a/b", _V2.format(root="/"), files)) == 2.5


@pytest.mark.parametrize(("text", "quota"), [("0 100000", None), ("100000 0", None), ("1 1", 1.0), ("100000", None)])
def test_a_quota_that_is_none_limits_nothing(text: str, quota: float | None, tmp_path: Path) -> None:
    assert cpu_quota(_machine(tmp_path, "0::/a", _V2.format(root="/"), {"a/cpu.max": text})) == quota
