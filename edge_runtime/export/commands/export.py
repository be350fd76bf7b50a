"""`profl-edge export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from device_profiles.contract import DType, LossName
from device_profiles.errors import UsageError
from device_profiles.manifest import Loss, Manifest, Optimizer
from device_profiles.optimizers import OPTIMIZERS, OptimizerName
from device_profiles.settings import Setting
from device_profiles.work import Growing
from edge_runtime.ending import as_process, exit_status
from edge_runtime.export.commands.model_options import (
    asked_or_usual,
    classes_option,
    head_option,
    input_dtype_option,
    input_option,
    width_option,
)
from edge_runtime.export.commands.models import models
from edge_runtime.export.commands.preparing import preparing_options
from edge_runtime.export.models.preparation import Preparation
from edge_runtime.export.targets.targets import TARGETS, export_target
from edge_runtime.options import Finite, Size, TrainingWork

_PROGRAM = "profl-edge"


def _betas(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[float, float]:
    """`0.9,0.999` as two numbers."""
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("write two numbers, such as 0.9,0.999", field="betas", value=text) from None
    return first, second


@click.command("export", epilog="Example: profl-edge export --model resnet18 --batch 32 -o bundles/resnet18")
@click.option("--model", required=True, help="A built-in model (see `profl-edge models`) or package.module:factory.")
@width_option
@input_option
@input_dtype_option
@classes_option
@head_option
@preparing_options
@click.option("--blocks", type=int, help="Cut into N blocks, the largest of which takes as little memory as possible.")
@click.option("--partition", help="Units of each block, such as 0-2,3-4,5-8.")
@click.option("--block", type=int, help="Export only this block's programs.")
@click.option("--all", "everything", is_flag=True, help="Export every block's programs (the default).")
@click.option("--batch", default=32, show_default=True, help="Examples in one step.")
@click.option("--micro-batch", type=int, help="Examples in one execution; a step accumulates executions up to --batch.")
@click.option(
    "--recompute",
    type=Size(),
    metavar="SIZE",
    help="Recompute layers in the backward pass until every arena fits this size, such as 48MB.",
)
@click.option("--joint", is_flag=True, help="Also export programs that train several consecutive blocks together.")
@click.option(
    "--work",
    "works",
    type=TrainingWork(),
    multiple=True,
    help="Export only this training step, such as joint-units3-8 (units 3 to 8 together) or head-units0-8 (the output "
    "module alone); repeatable.",
)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="sgd", show_default=True, help="Optimizer.")
@click.option(
    "--momentum", type=Finite(0.0, 1.0, max_open=True), default=0.9, show_default=True, help="SGD's momentum."
)
@click.option("--nesterov", is_flag=True, help="Use Nesterov's momentum.")
@click.option(
    "--betas", default="0.9,0.999", show_default=True, callback=_betas, help="Decay rates of AdamW's moments."
)
@click.option(
    "--eps",
    type=Finite(0.0),
    default=1e-8,
    show_default=True,
    help="AdamW: added to the denominator for numerical stability.",
)
@click.option("--clip-norm", type=Finite(0.0), default=0.0, help="Largest norm of all gradients together; 0: no limit.")
@click.option(
    "--momentum-dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type in which the momentum is stored.",
)
@click.option("--weight-decay", type=Finite(0.0), default=5e-4, show_default=True, help="Weight decay.")
@click.option(
    "--proximal", is_flag=True, help="Add FedProx's proximal term; its factor is given by `train --proximal-mu`."
)
@click.option(
    "--loss", type=click.Choice(["cross-entropy", "mse"]), default="cross-entropy", show_default=True, help="Loss."
)
@click.option(
    "--label-smoothing", type=Finite(0.0, 1.0), default=0.0, help="Part of each label that is spread over all classes."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the initial weights.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="native",
    show_default=True,
    help="native: a bundle for this runtime; executorch: programs for TrainingModule; onnx: the model for inference.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Trained weights (safetensors) for --target executorch or onnx."
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare a training step with PyTorch on random data before anything is written.",
)
@click.option("--costs", is_flag=True, help="Also write what every run of units would cost to train (costs.json).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write; a file for onnx."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def export(
    context: click.Context,
    /,
    model: str,
    width: int | None,
    input_text: str | None,
    classes: int | None,
    head: str | None,
    blocks: int | None,
    partition: str | None,
    block: int | None,
    everything: bool,
    batch: int,
    micro_batch: int | None,
    recompute: int | None,
    joint: bool,
    works: tuple[Growing, ...],
    optimizer: OptimizerName,
    momentum: float,
    nesterov: bool,
    betas: tuple[float, float],
    eps: float,
    clip_norm: float,
    momentum_dtype: DType,
    weight_decay: float,
    proximal: bool,
    loss: LossName,
    label_smoothing: float,
    input_dtype: DType | None,
    seed: int,
    target: str,
    weights: Path | None,
    train_units: str | None,
    frozen_dtype: DType,
    verify: bool,
    costs: bool,
    output: Path,
    as_json: bool,
    **_preparing: Any,
) -> None:
    """Cut a model into blocks and write each block's training step as one program."""
    if everything and block is not None:
        raise UsageError(
            (Setting("all"), " cannot be combined with ", Setting("block")), remedy="leave one of the two out"
        )
    if works and block is not None:
        raise UsageError((Setting("work"), " cannot be combined with ", Setting("block")), remedy="leave one out")
    if train_units is not None and (works or joint or block is not None):
        other = Setting("work" if works else "joint" if joint else "block")
        raise UsageError((Setting("train_units"), " cannot be combined with ", other), remedy="leave one out")
    if works and joint:
        raise UsageError((Setting("work"), " cannot be combined with ", Setting("joint")), remedy="leave one out")
    _refuse_options_of_the_other(context, optimizer)
    input_shape, classes = asked_or_usual(model, input_text, classes)
    if target != "native":
        export_target(context, input_shape=input_shape, classes=classes)
        return
    if weights is not None:
        raise UsageError(
            "a bundle holds initial weights",
            field="weights",
            remedy="start from them with `profl-edge export --initial-weights`, or give them to "
            "`profl-edge train --weights`",
        )
    from edge_runtime.export.ir.faults import faults_named
    from edge_runtime.export.targets.native import export_bundle

    with faults_named("the model could not be exported"):
        manifest = export_bundle(
            model,
            output,
            width=width,
            blocks=blocks,
            partition=partition,
            block=block,
            batch=batch,
            micro_batch=micro_batch,
            recompute_bytes=recompute,
            joint=joint,
            works=works or None,
            optimizer=Optimizer(
                name=optimizer,
                momentum=momentum if "momentum" in OPTIMIZERS[optimizer].options else 0.0,
                momentum_dtype=momentum_dtype,
                nesterov=nesterov,
                weight_decay=weight_decay,
                beta1=betas[0],
                beta2=betas[1],
                eps=eps,
                clip_norm=clip_norm,
                proximal=proximal,
            ),
            loss=Loss(name=loss, label_smoothing=label_smoothing),
            input_dtype=input_dtype,
            input_shape=input_shape,
            classes=classes,
            head=head,
            seed=seed,
            preparation=Preparation.of(context.params),
            train_units=train_units,
            frozen_dtype=frozen_dtype,
            costs=costs,
            verify=verify,
            progress=lambda line: click.echo(line, err=True),
        )
    if as_json:
        click.echo(json.dumps({"bundle": str(output), "programs": msgspec.to_builtins(manifest.programs)}))
    else:
        click.echo(_table(manifest))
        click.echo(f"wrote {output}")


def _refuse_options_of_the_other(context: click.Context, optimizer: OptimizerName) -> None:
    """Raise UsageError for an option of an optimizer that was not chosen: it would be left out without a word."""
    for owner, kind in OPTIMIZERS.items():
        for name in kind.options:
            given = context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
            if given and owner != optimizer:
                raise UsageError(
                    (Setting(name), " requires ", Setting("optimizer", owner)),
                    remedy=("leave it out with ", Setting("optimizer", optimizer)),
                )


def _table(manifest: Manifest) -> str:
    width = max(len(program.name) for program in manifest.programs) + 2
    lines = [f"{'program':<{width}}{'units':>7}{'arena MB':>10}{'live MB':>10}{'frozen MB':>11}"]
    for program in manifest.programs:
        units = f"{program.work.units[0]}-{program.work.units[-1]}"
        memory = program.memory
        lines.append(
            f"{program.name:<{width}}{units:>7}{memory.arena_bytes / 2**20:>10.1f}"
            f"{memory.live_bytes / 2**20:>10.1f}{memory.frozen_bytes / 2**20:>11.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the host commands alone: `python -m edge_runtime.export.commands.export export ...`."""
    group = click.Group(commands={"export": export, "models": models})
    sys.exit(as_process(_PROGRAM, lambda: exit_status(_PROGRAM, lambda: group.main(standalone_mode=False))))


if __name__ == "__main__":
    main()
