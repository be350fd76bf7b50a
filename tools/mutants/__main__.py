"""Mutate modules and see whether their unit tests notice: `python -m tools.mutants AREA`, by hand.

Each mutant has one small change. Those that no test notices are listed, and the exit status is 1, unless
`equivalent.toml` says why the change makes no difference. Nothing in the tree is changed: mutants live in a copy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from tools.mutants.areas import AREAS
from tools.mutants.mutations import mutants_of
from tools.mutants.running import PASSED, copy_tree, run_tests

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")


def main() -> int:
    """Run areas, all of them by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all by default")
    parser.add_argument("--module", help="only modules whose path ends so")
    parser.add_argument("--function", help="only what lies in this function or class")
    given = parser.parse_args()
    if unknown := set(given.areas) - AREAS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: no such area; there are {', '.join(AREAS)}")
    # What tests import takes longer than most tests: loaded once, each mutant's process begins with it.
    import safetensors.numpy  # noqa: F401

    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder).resolve() / "tree"
        copy.mkdir()
        copy_tree(ROOT, copy)
        for area in given.areas or AREAS:
            modules = [path for pattern in AREAS[area].modules for path in sorted(ROOT.glob(pattern))]
            tests = [str(p.relative_to(ROOT)) for pattern in AREAS[area].tests for p in sorted(ROOT.glob(pattern))]
            for module in modules:
                name = module.relative_to(ROOT).as_posix()
                if name.endswith((given.module or "", "/__init__.py")) and not name.endswith("/__init__.py"):
                    survivors += _run_module(copy, name, tests, given.function)
    return 1 if survivors else 0


def _run_module(copy: Path, name: str, tests: list[str], function: str | None) -> int:
    path, log = copy / name, copy.parent / "log"
    original = path.read_text(encoding="utf-8")
    module = name.removesuffix(".py").replace("/", ".")
    started = time.monotonic()
    if run_tests(copy, module, tests, seconds=600, log=log) != PASSED:
        print(f"{name}: tests fail without any change:\n{log.read_text(errors='replace')}")
        return 1
    seconds = 10 + 5 * (time.monotonic() - started)
    known = _equivalent(name)
    counts = {"killed": 0, "equivalent": 0, "survived": 0}
    for mutant in mutants_of(original):
        if function is not None and function not in mutant.place.split("."):
            continue
        code = original.splitlines()[mutant.line - 1][mutant.column :].strip()
        if (mutant.place, code, mutant.change) in known:
            counts["equivalent"] += 1
            continue
        path.write_text(mutant.source, encoding="utf-8")
        status = run_tests(copy, module, tests, seconds=seconds, log=log)
        counts["survived" if status == PASSED else "killed"] += 1
        if status == PASSED:
            print(f"{name}:{mutant.line}: {mutant.place}: {mutant.change}", flush=True)
    path.write_text(original, encoding="utf-8")
    print(f"{name}: {', '.join(f'{count} {what}' for what, count in counts.items())}", flush=True)
    return counts["survived"]


def _equivalent(name: str) -> set[tuple[str, str, str]]:
    """Places, what stands there to the end of the line, and changes of a module that make no difference."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get(name, [])
    return {(entry["place"], entry["code"], entry["change"]) for entry in listed}


if __name__ == "__main__":
    sys.exit(main())
