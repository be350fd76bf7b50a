"""The mutation runner: what it changes, and that it tells a test that notices from one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.mutants.mutations import mutants_of
from tools.mutants.running import PASSED, run_tests


def _changes(source: str) -> list[str]:
    return [mutant.change for mutant in mutants_of(source)]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("a < b", ["a < b -> pass", "a < b -> a <= b"]),
        ("x = a and b", ["a and b -> a or b", "a and b -> b", "a and b -> a"]),
        ("x = not a", ["not a -> a"]),
        ("x = a + 2", ["a + 2 -> a - 2", "2 -> 3", "2 -> 1"]),
        ("x = True", ["True -> False"]),
        ("x += y", ["x += y -> pass"]),
        ("if a: b = c", ["if a: b = c -> if not a: b = c"]),
        ("x = [a for a in b if c]", [" for a in b if c -> for a in b".strip()]),
        ("x = min(a, b)", ["min(a, b) -> max(a, b)"]),
        ("def f(): return a", ["return a -> return None"]),
        ("def f(): raise a", ["raise a -> pass"]),
    ],
)
def test_each_kind_of_change_is_made_once(source: str, changes: list[str]) -> None:
    assert _changes(source) == changes


def test_what_is_for_readers_and_checkers_is_left() -> None:
    source = '"""Docs."""\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n    import a\n'
    assert _changes(source + 'class A(B, frozen=True):\n    """Docs."""\n\n    x: "int | 2"\n') == []


def test_a_mutant_differs_from_the_source_in_its_change_alone() -> None:
    source = "def f(a):\n    b = 1\n    return a < b\n\n\ndef g():\n    return 1\n"
    found = {(mutant.place, mutant.line, mutant.change): mutant.source.split() for mutant in mutants_of(source)}
    assert found["f", 3, "a < b -> a <= b"] == source.replace("<", "<=").split()
    assert found["g", 7, "1 -> 2"] == source.replace("return 1", "return 2").split()
    assert len(found) == 6


@pytest.mark.parametrize(("limit", "passes"), [(5, True), (4, False), (6, True)])
def test_a_survivor_is_a_change_that_no_test_notices(tmp_path: Path, limit: int, passes: bool) -> None:
    (tmp_path / "measured.py").write_text(f"def fits(size):\n    return size < {limit}\n")
    (tmp_path / "test_it.py").write_text("from measured import fits\n\ndef test_it():\n    assert fits(4)\n")
    status = run_tests(tmp_path, "measured", ["test_it.py"], seconds=60, log=tmp_path / "log")
    assert (status == PASSED) is passes, (tmp_path / "log").read_text()


def test_tests_that_do_not_run_the_module_or_never_end_are_no_success(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text("")
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n")
    assert run_tests(tmp_path, "measured", ["test_it.py"], seconds=60, log=tmp_path / "log") == 99
    assert "was not tested" in (tmp_path / "log").read_text()
    (tmp_path / "test_it.py").write_text("import time\nimport measured\n\ndef test_it():\n    time.sleep(600)\n")
    assert run_tests(tmp_path, "measured", ["test_it.py"], seconds=3, log=tmp_path / "log") is None
