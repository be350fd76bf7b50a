"""The command line itself: what it imports, what it prints, how it ends."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from edge_runtime.device.cli import main
from edge_runtime.device.commands.options import parse_size

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
        (["train", "b", "--data", "digits"], "Missing option '--block'"),
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
    assert done.stderr.splitlines() == [
        "profl-edge: error: 'export' needs the host's packages: pip install profl-edge[export]"
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [("128MB", 128 << 20), ("1.5GB", 3 << 29), ("64 kb", 65536), ("12MiB", 12 << 20), ("2M", 2 << 20), ("7", 7)],
)
def test_sizes_are_multiples_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "0", "0.0000001KB", "12 parsecs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="128MB"):
        parse_size(text)
