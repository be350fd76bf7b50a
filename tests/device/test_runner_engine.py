"""The runner's own engine against ExecuTorch: what ExecuTorch accepts is accepted, with the same bits, and what the
loader refuses is refused by both.

`run_programs` is linked twice with the same kernels: with the engine of the modules, and with the runner's.
ExecuTorch verifies a file once more behind the loader, and refuses a little of what is damaged where nothing is read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("executorch", reason="it is what the engine is compared with")
pytest.importorskip("torch", reason="a bundle is exported with it")

from tests.support.native_build import programs
from tests.support.runner import run

pytestmark = pytest.mark.timeout(1800)

CASES = 400
VERIFIED = "is not a program this runtime reads (ExecuTorch error"


@pytest.fixture(scope="module")
def engines() -> tuple[Path, Path]:
    """`run_programs` with ExecuTorch, and without."""
    theirs, ours = programs("run_programs_executorch", "run_programs_own")
    return theirs, ours


def test_programs_and_damaged_copies_of_them_come_to_the_same(
    engines: tuple[Path, Path], cnn_bundle: Path, summing_bundle: Path
) -> None:
    programs = [path for bundle in (cnn_bundle, summing_bundle) for path in sorted(bundle.glob("programs/*.pte"))]
    ours = _compared(engines, CASES, 7, programs)
    digests = [line for line in ours if len(line.rpartition(": ")[2]) == 16]
    assert len([line for line in digests if line.startswith("program")]) == len(programs)
    assert len(digests) > len(programs) + CASES // 20 and len(ours) > len(digests) + CASES // 4


@pytest.mark.study
@pytest.mark.parametrize("seed", range(4))
def test_so_do_programs_that_call_every_operator(
    engines: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    from tools.fuzz.corpus import write_corpus

    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    programs = sorted(folder.glob("*/programs/*.pte"))
    _compared(engines, 20_000, seed, programs)


def _compared(engines: tuple[Path, Path], cases: int, seed: int, programs: list[Path]) -> list[str]:
    """What our engine printed, after it was held against ExecuTorch's."""
    theirs, ours = (run(engine, cases, seed, *programs).output.splitlines() for engine in engines)
    assert len(ours) == len(theirs)
    other = [(our, their) for our, their in zip(ours, theirs, strict=True) if our != their]
    assert all(VERIFIED in their and their.startswith("case") for _, their in other), other[:3]
    assert len(other) <= max(2, cases // 400)
    return ours
