"""What the documents and `--help` promise: commands that parse, links that lead somewhere, one test command."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {
    "profl-edge": "edge_runtime.device.cli:application",
    "profl-profile": "profiler.cli:cli",
    "profl-server": "server.cli:cli",
}


def _group(program: str) -> click.Group:
    module, _, name = PROGRAMS[program].partition(":")
    group = getattr(importlib.import_module(module), name)
    assert isinstance(group, click.Group)
    return group


def _commands() -> Iterator[tuple[str, str, click.Command]]:
    """Every command of every program, with its whole name."""
    for program in PROGRAMS:
        waiting: list[tuple[str, click.Command]] = _inside(_group(program))
        while waiting:
            name, command = waiting.pop(0)
            if isinstance(command, click.Group):
                waiting += [(f"{name} {below}", inner) for below, inner in _inside(command)]
            else:
                yield program, name, command


def _inside(group: click.Group) -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found = ((name, group.get_command(context, name)) for name in group.list_commands(context))
    return [(name, command) for name, command in found if command is not None]


def _context(program: str) -> click.Context:
    return click.Context(_group(program), info_name=program)


def _parse(line: str) -> None:
    """Parse a command line without running it; raises click.ClickException as the command would."""
    program, *arguments = shlex.split(line)
    group = _group(program)
    with group.make_context(program, arguments) as context:
        remaining = [*context._protected_args, *context.args]
        name, command, rest = group.resolve_command(context, remaining)
        while isinstance(command, click.Group):
            assert name is not None
            context = command.make_context(name, rest, parent=context)
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None and command is not None
        command.make_context(name, rest, parent=context).close()


def _documented_lines() -> list[tuple[str, str]]:
    lines = []
    for document in DOCUMENTS:
        for line in document.read_text().splitlines():
            match = re.match(r"\s*(?:\$ )?((?:profl-edge|profl-profile|profl-server) .*)", line)
            if match and line.startswith(("    ", "\t", "profl", "$")):
                lines.append((document.name, match[1].partition("  #")[0]))
    return lines


@pytest.mark.parametrize(("program", "name", "command"), _commands())
def test_every_command_has_an_example_that_parses_and_json(program: str, name: str, command: click.Command) -> None:
    assert command.epilog is not None
    example = command.epilog.removeprefix("Example: ")
    assert example != command.epilog and example.startswith(f"{program} ")
    _parse(example)
    assert "--json" in {option for parameter in command.params for option in parameter.opts}


def test_there_are_documented_commands_of_every_program() -> None:
    assert {line.split()[0] for _, line in _documented_lines()} == set(PROGRAMS)


@pytest.mark.parametrize(("document", "line"), _documented_lines())
def test_commands_in_the_documents_parse(document: str, line: str) -> None:
    _parse(line)


def test_a_documented_command_with_a_wrong_option_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        _parse("profl-edge train BUNDLE --block 1 --data digits --no-such-option")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_console_scripts_are_callables_and_packages_are_the_ones_there_are() -> None:
    scripts = PYPROJECT["project"]["scripts"]
    assert set(scripts) == set(PROGRAMS)
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"edge_runtime"}
    assert set(PYPROJECT["tool"]["scikit-build"]["wheel"]["packages"]) == packages - {"tests"}


def test_ci_runs_the_tests_command_of_the_readme_and_the_sanitizers() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line.split(" ||")[0] for line in script.read_text().splitlines() if line.startswith("make")]
    assert commands == ["make test", "make sanitize"]
    readme = (ROOT / "README.md").read_text()
    first_screen = readme.splitlines()[:20]
    assert any(line.strip().startswith("make demo") for line in first_screen)
    assert any(line.strip().startswith("make test") for line in first_screen)


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "sanitize", "lint", "format", "wheel", "help"):
        assert f"make {target} " in done.stdout


def test_torch_is_asked_for_by_exactly_one_version_everywhere() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    pinned = {r for listed in extras.values() for r in listed if re.match(r"(torch|executorch)\b", r)}
    assert pinned == {"torch==2.13.0", "executorch==1.5.1"}
    assert all(requirement in (ROOT / "Makefile").read_text() for requirement in pinned)


def _modules() -> list[Path]:
    folders = ("device_profiles", "edge_runtime", "profiler", "server", "tools", "tests")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def test_every_module_says_what_it_is_for() -> None:
    modules = _modules()
    assert len(modules) > 500
    assert [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_machine_path_is_in_a_file_of_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: git ls-files lists nothing")
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert names
    places = re.compile(rb"(?<![\w.])/(?:root|home|Users)/\w")
    assert [name for name in names if places.search((ROOT / name).read_bytes())] == []
