"""The command line itself: what it imports, what it prints, how it ends."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import click
import pytest

from edge_runtime.device.cli import main
from edge_runtime.options import Size

_WITHOUT_TORCH = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "executorch"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Guard())
from edge_runtime.device.cli import main
sys.exit(main())
"""


def test_the_overview_names_every_command_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom edge_runtime.device.cli import main\nstatus = main(['--help'])\n"
        "heavy = {'numpy', 'torch', 'safetensors', 'psutil', 'msgspec', 'edge_runtime.export'} & set(sys.modules)\n"
        "print(status, sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    for command in ("models", "export", "inspect", "train", "eval", "bench"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", ["inspect", "train", "eval", "bench", "export", "models"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Example: profl-edge {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["train"], "Missing argument 'BUNDLE'"),
        (["inspect", "/absent"], "/absent: not a bundle folder"),
    ],
)
def test_a_wrong_command_line_ends_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("profl-edge: error: ")
    assert message in captured.err


def test_exporting_without_torch_says_what_to_install() -> None:
    arguments = ["export", "--model", "cnn", "-o", "/nowhere/at/all"]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("profl-edge: error: 'export' needs the host's packages; install ")
    assert "pip install torch==" in line


@pytest.mark.parametrize(
    ("text", "size"),
    [("128MB", 128 << 20), ("1.5GB", 3 << 29), ("64 kb", 65536), ("12MiB", 12 << 20), ("2M", 2 << 20), ("7B", 7)],
)
def test_sizes_are_multiples_of_1024(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


_NO_SIZES = ["", "MB", "-1MB", "0", "0MB", "0.0000001KB", "12 parsecs", "nan", "nanMB", "infGB", "1e3MB", "٣MB"]


@pytest.mark.parametrize("text", [*_NO_SIZES, "9" * 400 + "GB", "9000000000GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="128MB"):
        Size().convert(text, None, None)


@pytest.mark.parametrize("text", ["64", "64.5", " 64 "])
def test_a_size_without_a_unit_is_not_guessed(text: str) -> None:
    with pytest.raises(click.BadParameter, match=rf"has no unit; write {text.strip()}MB"):
        Size().convert(text, None, None)


def test_every_size_on_a_command_line_asks_for_a_unit(capsys: pytest.CaptureFixture[str]) -> None:
    from profiler.cli import main as profl_profile

    commands = [
        (main, ["train", "b", "--block", "1", "--data", "digits", "--memory-limit"]),
        (profl_profile, ["run", "b", "--limit"]),
        (profl_profile, ["fit", "b", "--limit"]),
    ]
    if importlib.util.find_spec("torch") is not None:
        commands.append((main, ["export", "--model", "cnn", "-o", "b", "--recompute"]))
    for command, arguments in commands:
        assert command([*arguments, "64"]) == 2
        assert f"'{arguments[-1]}': '64' has no unit; write 64MB" in capsys.readouterr().err
