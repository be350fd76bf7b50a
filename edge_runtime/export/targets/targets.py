"""`profl-edge export --target executorch|onnx`: what other runtimes run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from device_profiles.errors import UsageError
from device_profiles.settings import Setting
from edge_runtime.export.models.preparation import PARTS, Preparation

_MODEL = frozenset({"model", "width", "input_text", "input_dtype", "classes", "seed", "weights", *PARTS})
_CUT = frozenset({"head", "blocks", "partition", "block", "everything", "batch"})
_TAKEN = {"executorch": _MODEL | _CUT, "onnx": _MODEL}
"""Parameters of the command that a target uses; others may not be given with it."""
_COMMON = frozenset({"target", "output", "as_json"})
TARGETS = ("native", *_TAKEN)


def export_target(context: click.Context, *, input_shape: tuple[int, ...], classes: int) -> None:
    """Carry out the command in `context` for a target other than native, and say what was written.

    Raises UsageError for an option that does not belong to the target.
    """
    values = context.params
    target: str = values["target"]
    _refuse_foreign_options(context, _TAKEN[target] | _COMMON, target)
    names = ("model", "output", "width", "input_dtype", "seed", "weights")
    shared = {name: values[name] for name in names} | {"classes": classes, "preparation": Preparation.of(values)}
    output: Path = values["output"]
    if target == "onnx":
        from edge_runtime.export.targets.onnx import export_onnx

        export_onnx(**shared, input_shape=input_shape)
        _say(values["as_json"], {"model": str(output)}, f"wrote {output}")
        return
    from edge_runtime.export.targets.executorch import export_executorch

    cut = {name: values[name] for name in ("head", "blocks", "partition", "block", "batch")}
    written = export_executorch(
        **shared, **cut, input_shape=input_shape, progress=lambda line: click.echo(line, err=True)
    )
    lines = [f"{program.file}: units {program.first_unit}-{program.last_unit}" for program in written.programs]
    report = {"folder": str(output), **msgspec.to_builtins(written)}
    _say(values["as_json"], report, "\n".join([*lines, f"wrote {output}"]))


def _refuse_foreign_options(context: click.Context, taken: frozenset[str], target: str) -> None:
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") == click.core.ParameterSource.COMMANDLINE
        if given and parameter.name not in taken:
            raise UsageError(
                (f"{parameter.opts[-1]} cannot be combined with ", Setting("target", target)), remedy="leave it out"
            )


def _say(as_json: bool, report: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(report) if as_json else text)
