"""Errors are structured: nobody reads their English, and every setting that they name has words in both front ends."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from device_profiles.errors import FormatError, ProflError, UsageError
from device_profiles.settings import COMMAND_LINE, THE_MODEL, Exported, Setting
from edge_runtime.device.cli import application as profl_edge
from edge_runtime.ending import exit_status
from profiler.cli import cli as profl_profile
from server.cli import cli as profl_server
from server.fleet.fleet import Fleet
from server.fleet.words import KEYS, FleetWords

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("device_profiles", "edge_runtime", "profiler", "server")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
READERS = {
    "device_profiles/wrong_values.py",  # msgspec's errors have no structure
    "edge_runtime/export/ir/faults.py",  # nor have PyTorch's
}
"""The only modules that may take the text of an exception apart."""
TAKING_APART = {"replace", "removeprefix", "removesuffix", "partition", "rpartition", "translate"}
"""What changes a text by what is in it. To split it into lines or words is no reading."""
PATTERNS = {"sub", "subn", "match", "fullmatch", "search", "findall", "finditer", "split"}
WITHOUT_A_FLEET_KEY = {
    *("all", "block", "blocks", "first_block", "joint", "purpose", "target", "work"),
    *("bundle", "export", "fleet", "html", "variant", "why"),
    *("betas", "eps", "frozen_dtype", "micro_batch", "momentum_dtype", "nesterov", "optimizer", "recompute"),
    *("augment_epoch", "augment_seed", "cache_dir", "cache_prefix_dtype", "cached_augmentations"),
    *("initial_prefix", "output", "profile", "resume", "weights"),
    *("ca", "insecure", "invite", "key", "memory_limit", "name", "quiet_hours", "server_key", "state_dir", "when"),
}
"""Settings of commands that a fleet file does not have: it has no other words for them than their options."""


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


TREES = {path.relative_to(ROOT).as_posix(): _tree(path) for path in SOURCES}


def _is_error_type(node: ast.expr | None) -> bool:
    return node is not None and any(
        isinstance(part, ast.Name | ast.Attribute)
        and re.fullmatch(r"\w*(Error|Exception)", part.id if isinstance(part, ast.Name) else part.attr) is not None
        for part in ast.walk(node)
    )


def _names_in(node: ast.AST) -> set[str]:
    """Names whose text is used; not those of which only an attribute is that is no text, such as `error.errno`."""
    texts = ("args", "message", "remedy", "said", "strerror")
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr not in texts:
        return set()
    if isinstance(node, ast.Name):
        return {node.id}
    return {name for child in ast.iter_child_nodes(node) for name in _names_in(child)}


def _texts_taken_apart(tree: ast.AST) -> Iterator[int]:
    """Lines where a regular expression, or a method that looks into a text, is used on that of an exception."""
    scopes: list[tuple[set[str], list[ast.stmt]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name is not None:
            scopes.append(({node.name}, node.body))
        elif isinstance(node, ast.FunctionDef):
            given = {argument.arg for argument in node.args.args if _is_error_type(argument.annotation)}
            if given:
                scopes.append((given, node.body))
    for names, body in scopes:
        nodes = [part for statement in body for part in ast.walk(statement)]
        for _ in range(3):  # names that texts of the exception are given, one after the other
            for node in nodes:
                if isinstance(node, ast.Assign) and _names_in(node.value) & names:
                    names |= set().union(*(_names_in(target) for target in node.targets))
        for node in nodes:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            given_error = any(_names_in(argument) & names for argument in node.args)
            if (node.func.attr in PATTERNS and given_error) or (
                node.func.attr in TAKING_APART and _names_in(node.func.value) & names
            ):
                yield node.lineno


def test_nobody_takes_the_text_of_an_error_apart() -> None:
    found = {path: lines for path, tree in TREES.items() if (lines := list(_texts_taken_apart(tree)))}
    assert found.keys() == READERS, found


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    f()\nexcept ValueError as error:\n    re.sub('a', 'b', str(error))",
        "try:\n    f()\nexcept ValueError as error:\n    text = str(error)\n    said = f'{text}!'\n    X.match(said)",
        "try:\n    f()\nexcept ProflError as error:\n    g(str(error).replace('--width', 'width'))",
        "def said(error: ProflError) -> str:\n    return str(error).removeprefix('partition: ')",
    ],
)
def test_an_error_that_is_taken_apart_is_found(code: str) -> None:
    assert list(_texts_taken_apart(ast.parse(code)))


def _keys(tree: ast.AST) -> set[str]:
    """Keys of settings that errors of a module name."""
    found = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        named = [k.value for k in node.keywords if k.arg in ("field", "batch_key")]
        if node.func.id in ("Setting", "Exported", "ValueOf"):
            named += node.args[:1]
        found |= {part.value for value in named for part in ast.walk(value) if isinstance(part, ast.Constant)}
    return {key for key in found if isinstance(key, str)}


USED = set().union(*(_keys(tree) for tree in TREES.values()))


def _options(command: click.Command) -> set[str]:
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group):
        context = click.Context(command)
        inner = (command.get_command(context, name) for name in command.list_commands(context))
        found = found.union(*(_options(one) for one in inner if one is not None))
    return found


def _fleet_keys(kind: type[msgspec.Struct], start: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        yield f"{start}{field.name}"
        parts = [field.type, *getattr(field.type, "__args__", ())]
        for part in parts:
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield from _fleet_keys(part, f"{start}{field.name}.")


def test_every_setting_is_an_option_of_some_command() -> None:
    pytest.importorskip("torch")  # to ask `profl-edge export` for its options
    options = _options(profl_edge) | _options(profl_profile) | _options(profl_server)
    names = {key: COMMAND_LINE.name(key) for key in USED | KEYS.keys() if "." not in key}
    assert len(names) > 30
    assert {key: name for key, name in names.items() if name not in options} == {}


def test_every_setting_has_words_in_the_fleet_file() -> None:
    assert {key for key in USED if "." not in key} <= KEYS.keys() | WITHOUT_A_FLEET_KEY
    assert not KEYS.keys() & WITHOUT_A_FLEET_KEY
    there_are = set(_fleet_keys(Fleet))
    assert set(KEYS.values()) | {key for key in USED if "." in key} <= there_are


def test_what_is_raised_names_no_option_in_its_text() -> None:
    trees = {path: tree for path, tree in TREES.items() if path.startswith(("device_profiles", "edge_runtime"))}
    assert len(trees) > 100
    assert {path: texts for path, tree in trees.items() if (texts := _options_raised(tree))} == {}


def test_an_option_that_is_raised_is_found() -> None:
    code = "raise UsageError(f'{n}: --width is odd', remedy='profl-edge train --weights FILE')"
    assert _options_raised(ast.parse(code)) == [": --width is odd"]


def _options_raised(tree: ast.AST) -> list[str]:
    """Texts of errors that a module raises, of those that name an option."""
    texts = [
        part.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    # `at("--weights")` names where the file is from; `profl-edge train --weights` and pip's are commands to run.
    texts = [text for text in texts if not re.search(r"profl-(edge|profile|server) |pip install", text)]
    return [text for text in texts if re.search(r"(?<![\w-])--[a-z]", text) and text != "--weights"]


def test_an_error_that_moves_keeps_what_it_is_about() -> None:
    error = FormatError("is short", field="data", value="x", remedy=Exported("classes", 3), place="file")
    moved = error.at("--bundle")
    assert str(moved) == "--bundle: file: --data x: is short; export the model with --classes 3"
    assert (moved.field, moved.value, moved.remedy) == ("data", "x", Exported("classes", 3))
    assert moved.said(FleetWords("cnn")) == "--bundle: file: data.sources x: is short; set model.classes to 3"
    assert type(moved) is FormatError and str(error).startswith("file: ")


def test_an_error_survives_the_way_to_another_process() -> None:
    error = UsageError((THE_MODEL, " is wide"), remedy=("give ", Setting("width", 8))).at("here")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "here: the model is wide; give --width 8"
    assert again.said(FleetWords("cnn")) == "here: model.name cnn: the model is wide; give model.width = 8"


def test_a_plain_message_names_no_setting() -> None:
    assert not ProflError("killed").names_settings
    assert ProflError("killed", remedy=Setting("width")).names_settings


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (UsageError("two\nlines", field="width"), 2, "name: error: --width: two lines"),
        (ProflError("failed"), 1, "name: error: failed"),
        (KeyboardInterrupt(), 130, "name: error: interrupted"),
        (click.Abort(), 130, "name: error: interrupted"),
        (click.UsageError("No such option"), 2, "name: error: No such option"),
        (MemoryError(), 1, "name: error: no memory left; give the process more"),
        (PermissionError(13, "Permission denied", "file"), 1, "name: error: file: Permission denied"),
    ],
)
def test_a_command_ends_with_one_line_and_a_status(
    raised: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise raised

    assert exit_status("name", command) == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_command_that_asks_for_a_status_gets_it_and_faults_are_raised() -> None:
    assert exit_status("name", lambda: 3) == 3
    assert exit_status("name", lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        exit_status("name", lambda: 1 / 0)
