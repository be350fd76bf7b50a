"""Numbers on the command lines: what is none, or infinite, is refused by its option before anything is read."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from edge_runtime.device.cli import LazyGroup
from edge_runtime.device.cli import main as profl_edge
from edge_runtime.options import Finite
from profiler.cli import cli as profiler
from profiler.cli import main as profl_profile
from server.cli import cli as server

TRAIN = ("train", "absent", "--block", "1", "--data", "digits")
EXPORT = ("export", "--model", "cnn", "-o", "absent")


@pytest.mark.parametrize("text", ["nan", "inf", "1e39"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (EXPORT, "--momentum"),
        (EXPORT, "--weight-decay"),
        (EXPORT, "--clip-norm"),
        (EXPORT, "--eps"),
        (EXPORT, "--label-smoothing"),
        (EXPORT, "--betas"),
        (TRAIN, "--epochs"),
        (TRAIN, "--max-seconds"),
        (TRAIN, "--lr"),
        (TRAIN, "--proximal-mu"),
    ],
)
def test_a_number_that_is_none_is_refused_by_its_option(
    command: tuple[str, ...], option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = f"{text},0.9" if option == "--betas" else text
    assert profl_edge([*command, option, value]) == 2
    errors = capsys.readouterr().err
    assert option in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("text", ["1", "1.5", "-0.1"])
def test_a_momentum_that_keeps_everything_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert profl_edge([*EXPORT, "--momentum", text]) == 2
    assert f"'--momentum': {float(text)} is not in the range 0.0<=x<1.0" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("run", "b", "--timeout"), ("compare", "a", "b", "--threshold")])
def test_the_profilers_numbers_are_numbers(option: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert profl_profile([*option, "nan"]) == 2
    assert f"'{option[-1]}': nan is not a finite number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (*EXPORT, "--optimizer", "adamw", "--momentum", "0.9"),
            "--momentum: requires --optimizer sgd",
        ),
        ((*EXPORT, "--betas", "0.9,0.99"), "--betas: requires --optimizer adamw"),
        ((*EXPORT, "--eps", "1e-8"), "--eps: requires --optimizer adamw"),
        ((*TRAIN, "--cache-prefix-dtype", "int8"), "--cache-prefix-dtype: requires --cache-prefix"),
        ((*TRAIN, "--cache-dir", "absent"), "--cache-dir: requires --cache-prefix"),
    ],
)
def test_an_option_that_would_be_left_out_without_a_word_is_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profl_edge(arguments) == 2
    assert f"profl-edge: error: {message}" in capsys.readouterr().err


def _commands(group: click.Group) -> list[click.Command]:
    context = click.Context(group)
    found = [group.get_command(context, name) for name in group.list_commands(context)]
    return [command for command in found if command is not None]


@pytest.mark.parametrize("group", [LazyGroup("profl-edge"), profiler, server], ids=["edge", "profile", "server"])
def test_every_option_that_is_a_number_has_the_type_that_refuses_them(group: click.Group) -> None:
    loose = [
        f"{command.name} {parameter.opts[0]}"
        for command in _commands(group)
        for parameter in command.params
        if parameter.type.name.startswith("float") and not isinstance(parameter.type, Finite)
    ]
    assert loose == []


def test_an_optimizer_of_no_numbers_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the exporter needs torch")
    from device_profiles.errors import UsageError
    from device_profiles.manifest import Optimizer
    from edge_runtime.export.targets.native import check_optimizer

    for name in ("momentum", "weight_decay", "clip_norm", "eps"):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} nan: must be a finite number"):
            check_optimizer(Optimizer(name="sgd", **{name: float("nan")}))  # type: ignore[arg-type]  # parametrised
