"""Try every kernel on random geometries: `python -m tools.fuzz.geometries --count 1000`.

Each call is compared with PyTorch in float64, on one thread and on two, over each argument that programs let be
overwritten, with guard values around everything. What is wrong is printed with the operator and the seed that show it
again, and the exit status is 1. `PROFL_INSTRUCTION_SET` chooses the kernels of a lesser processor.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from tests.support.geometries import GENERATORS, complaints


def main() -> int:
    """Try some seeds of each operator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1, help="calls of each operator")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--operator", action="append", choices=sorted(GENERATORS), help="only this one; again for more")
    parser.add_argument("--exact", action="store_true", help="no guard values: the sanitizers see where arrays end")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    given = parser.parse_args()
    torch.set_num_threads(1)
    operators = given.operator or sorted(GENERATORS)
    begun, calls, found = time.monotonic(), 0, 0
    for seed in range(given.seed, given.seed + given.count):
        if given.seconds is not None and time.monotonic() - begun > given.seconds:
            break
        for operator in operators:
            calls += 1
            for complaint in complaints(operator, seed, guards=not given.exact):
                found += 1
                print(complaint, flush=True)
    print(f"{calls} calls, {found} findings, {time.monotonic() - begun:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
