"""What is mutated, and the tests that must notice. Both are patterns of paths from the root of the tree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Area:
    """Modules, and the unit tests that are run for each of their mutants."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


AREAS = {
    "promise": Area(
        ("device_profiles/predict.py",),
        ("tests/unit/device_profiles/test_predict_*.py", "tests/unit/device_profiles/test_predict.py"),
    ),
    "limits": Area(
        ("edge_runtime/device/limits/*.py",),
        (
            "tests/unit/device/test_device_control_groups.py",
            "tests/unit/device/test_device_cores.py",
            "tests/unit/device/test_device_limit_processes.py",
            "tests/unit/device/test_device_memory_groups.py",
            "tests/unit/device/test_device_own_group.py",
            "tests/unit/device/test_device_priority.py",
            "tests/unit/device/test_device_endings.py",
            "tests/unit/device/test_device_limits.py",  # real processes, which take longest
        ),
    ),
    "resume": Area(("edge_runtime/device/prepare/checkpoint.py",), ("tests/unit/device/test_device_checkpoint.py",)),
    "run-state": Area(("server/rounds/run_state.py",), ("tests/unit/server/test_resume.py",)),
    "aggregation": Area(("server/averaging/aggregation.py",), ("tests/unit/server/test_aggregation*.py",)),
    "planner": Area(
        ("server/planner/planner.py", "server/planner/choices.py"),
        (
            "tests/unit/server/test_choices.py",
            "tests/unit/server/test_planner*.py",
            "tests/unit/server/test_bundle_plan.py",
        ),
    ),
    "steps": Area(
        ("server/planner/steps.py", "server/planner/cuts.py", "server/planner/holding.py"),
        ("tests/unit/server/test_steps.py",),
    ),
    "fleet-plan": Area(
        ("server/planner/fleet_plan.py",),
        ("tests/unit/server/test_fleet_plan.py", "tests/unit/server/test_trades.py"),
    ),
}
