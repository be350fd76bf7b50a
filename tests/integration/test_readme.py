"""The README's commands, copied out of it and run one after the other as a new user would.

Fleet files that take minutes are the README's own with smaller numbers (`_SMALLER`), and epochs are fewer (`_EPOCHS`);
nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import warm

for _package in ("torch", "executorch", "mlxtend", "matplotlib"):
    pytest.importorskip(_package, reason="the README's commands need the host's packages and its data")

pytestmark = pytest.mark.timeout(1800)  # one fixture runs everything; a minute or so on a machine that is not busy
ROOT = Path(__file__).parents[2]
_SECTION = "## The pieces"
_SMALLER = {
    "demo.toml": {
        "name": '"cnn"',
        "width": 4,
        "batch": 16,
        "test_examples": 100,
        "steps": 2,
        "rounds": 2,
        "max_rounds": 1,
    },
    "simulation.toml": {
        "width": 4,
        "count": 4,
        "examples_per_client": 64,
        "test_examples": 100,
        "rounds": 12,
        "shrink_rounds": 1,
        "clients_per_round": 2,
        "warmup_rounds": 0,
    },
}
"""What stands in a fleet file for the README's own, so that a run takes seconds."""
_EPOCHS = {"--epochs 4": "--epochs 2"}
_PROGRAMS = {
    name: target.partition(":")
    for name, target in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()
}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One command of the README, ended."""

    line: str
    status: int
    output: str
    errors: str

    def numbers(self, name: str) -> list[float]:
        """The numbers behind `name` in its table."""
        (line,) = [text for text in self.output.splitlines() if text.startswith(f"{name} ")]
        return [float(number) for number in re.findall(r"-?\d+\.\d+|nan|inf", line)]


def _lines() -> list[str]:
    """Commands of the section, in order, without what is said of them."""
    section = (ROOT / "README.md").read_text().partition(_SECTION)[2].partition("\n## ")[0]
    return [line[4:].partition("  #")[0].strip() for line in section.splitlines() if line.startswith("    ")]


LINES = _lines()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ran]]:
    """Every command in a fresh folder that has what a clone has."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples" / "fleets").mkdir(parents=True)
    for path in (ROOT / "examples" / "fleets").glob("*.toml"):
        text = path.read_text()
        for key, number in _SMALLER.get(path.name, {}).items():
            text, count = re.subn(rf"(?m)^{key} = (\d+|\"resnet18\")$", f"{key} = {number}", text)
            assert count, f"{path.name} has no {key}"
        (folder / "examples" / "fleets" / path.name).write_text(text)
    if (ROOT / "data").is_dir():
        (folder / "data").symlink_to(ROOT / "data")
    yield {line: _run(line, folder) for line in LINES}
    shutil.rmtree(folder, ignore_errors=True)


def _run(line: str, folder: Path) -> Ran:
    for written, fewer in _EPOCHS.items():
        line = line.replace(written, fewer)
    program, *arguments = shlex.split(line)
    module, _, function = _PROGRAMS[program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    if program == "profl-server" or arguments[0] in {"export", "models"}:  # what imports PyTorch, or could
        done = warm.run(f"{module}:{function}", *arguments, folder=folder, environment=environment)
        return Ran(line=line, status=done.returncode, output=done.stdout, errors=done.stderr)
    code = f"import sys; from {module} import {function} as main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(line=line, status=done.returncode, output=done.stdout, errors=done.stderr)


def test_the_section_has_the_commands_of_all_programs() -> None:
    assert {line.split()[0] for line in LINES} == set(_PROGRAMS)
    assert len(LINES) > 15 and len(set(LINES)) == len(LINES)


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_readme_does_what_it_says(story: dict[str, Ran], line: str) -> None:
    ran = story[line]
    assert ran.status == 0, ran.errors
    assert "Traceback" not in ran.errors and "nan" not in ran.output.lower().split()
    if line.startswith("profl-edge train"):
        first, last = ran.numbers("loss")
        (smoothed,) = ran.numbers("smoothed loss")
        assert 0 <= smoothed < first < float("inf") and last < float("inf")
        assert "initial values" not in ran.output and "nothing" not in ran.output


def test_what_the_readme_trains_has_learned(story: dict[str, Ran]) -> None:
    accuracies = [ran.numbers("accuracy")[0] for line, ran in story.items() if line.startswith("profl-edge eval")]
    assert accuracies and min(accuracies) > 0.3  # chance is 0.10
