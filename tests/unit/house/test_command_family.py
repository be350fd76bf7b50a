"""Commands are one family: every one of them has `-h`, an example, and an answer to a name that is misspelled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from device_profiles.errors import UsageError
from edge_runtime.device.cli import application as profl_edge
from edge_runtime.device.data.open import KNOWN, open_raw
from profiler.cli import cli as profl_profile
from server.cli import cli as profl_server

PROGRAMS: dict[str, click.Group] = {
    "profl-edge": profl_edge,
    "profl-profile": profl_profile,
    "profl-server": profl_server,
}


def _below(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield names, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _below(command, (*names, name))
        else:
            yield (*names, name), command


ALL = [(program, names, command) for program, group in PROGRAMS.items() for names, command in _below(group)]
GROUPS = [(program, names) for program, names, command in ALL if isinstance(command, click.Group)]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """As in a process of its own: click keeps the help option of a command that another test has run by itself."""
    for _, _, command in ALL:
        command._help_option = None


def _said(program: str, *arguments: str) -> Result:
    return CliRunner().invoke(PROGRAMS[program], arguments, prog_name=program)


def test_all_programs_and_their_groups_are_there() -> None:
    assert len(ALL) > 25 and ("profl-server", ("federation",)) in GROUPS


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize(("program", "names"), [(program, names) for program, names, _ in ALL])
def test_every_command_has_help_with_an_example(program: str, names: tuple[str, ...], option: str) -> None:
    done = _said(program, *names, option)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Usage: {' '.join((program, *names))} ")
    usual = names if (program, names) != ("profl-profile", ("run",)) else ()  # its name may be left out
    assert f"Example: {' '.join((program, *usual))}" in " ".join(done.output.split())


@pytest.mark.parametrize(("program", "names"), GROUPS)
def test_every_group_says_its_version(program: str, names: tuple[str, ...]) -> None:
    done = _said(program, *names, "--version")
    assert done.exit_code == 0 and "version " in done.output


@pytest.mark.parametrize(("program", "names"), [(program, names) for program, names, _ in ALL if names])
def test_a_misspelled_command_gets_the_nearest_one(program: str, names: tuple[str, ...]) -> None:
    done = _said(program, *names[:-1], f"{names[-1]}x")
    assert done.exit_code == 2
    assert "did you mean" in done.output and names[-1] in done.output.rpartition("did you mean")[2]


@pytest.mark.parametrize(("program", "names"), [one for one in GROUPS if one != ("profl-profile", ())])
def test_a_command_like_none_gets_all_of_them(program: str, names: tuple[str, ...]) -> None:
    done = _said(program, *names, "qqqq")
    assert done.exit_code == 2
    assert f"No such command 'qqqq'; there are: {ALL_OF[program, names]}" in " ".join(done.output.split())


ALL_OF = {
    (program, names): ", ".join(command.list_commands(click.Context(command)))
    for program, names, command in ALL
    if isinstance(command, click.Group)
}


def test_a_bundle_that_is_called_like_a_command_is_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        done = _said("profl-profile", "shown")
    finally:
        os.chdir(before)
    assert "did you mean" not in str(done.exception) + done.output


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("npx:a.b", "did you mean npz:FILE?"),
        ("fashion_mnist", "did you mean fashion-mnist?"),
        ("npz", "write npz:FILE"),
        ("idx:", "write idx:DIR"),
        ("mine.npz", "write npz:mine.npz"),
        ("mine.csv", "write csv:mine.csv?label=COLUMN"),
        ("none.npz", "write npz:FILE: there is no file none.npz"),
        ("qqqq", None),
    ],
)
def test_a_misspelled_data_set_gets_the_nearest_one(
    spec: str, remedy: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.npz", "mine.csv"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError) as raised:
        open_raw(spec, split="train")
    assert f"--data {spec}: not a known data set (known: {KNOWN})" in str(raised.value)
    assert raised.value.remedy == remedy
