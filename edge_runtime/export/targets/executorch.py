"""Training programs for ExecuTorch's own `TrainingModule` (Android, iOS, Python): forward and backward, no update.

Such a program is the joint graph of prefix, block, output module and loss in ExecuTorch's portable operators. It
returns the loss, the gradients and the parameters, by their `state_dict` names; the application brings the optimizer.
It uses neither the kernels nor the memory plan of this runtime, and runs wherever ExecuTorch's training extension does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, schema, to_edge
from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch._decomp import get_decompositions
from torch.export import ExportedProgram
from torch.export.experimental import _export_forward_backward
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.attention import SDPBackend, sdpa_kernel

from device_profiles.contract import DType
from device_profiles.errors import UsageError
from device_profiles.files import named, write_json
from device_profiles.folders import atomic_folder, check_output_folder
from device_profiles.work import grow, label
from edge_runtime.export.capture.tracing import example_input, quiet
from edge_runtime.export.ir.faults import reason_of, remedy_for
from edge_runtime.export.models import default_dtype
from edge_runtime.export.models.checked import notes_on
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.models.preparation import UNCHANGED, Preparation
from edge_runtime.export.models.weights import read_weights
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.targets.block_module import BlockGraphs, block_graphs, joined_with_loss
from edge_runtime.export.targets.losses import check_one_label
from edge_runtime.export.targets.native import choose_partition, chosen_blocks, initial_weights

PROGRAMS_NAME = "programs.json"
_PARTS = (PROGRAMS_NAME, "*.pte")
_METHOD = "forward"
_GRADIENTS_INDEX = f"__et_training_gradients_index_{_METHOD}"
_PARAMETERS_INDEX = f"__et_training_parameters_index_{_METHOD}"
_DECOMPOSED = (torch.ops.aten._native_batch_norm_legit_functional,)
"""Operators of the joint graph that ExecuTorch has no out-variant of."""


class TrainingProgram(msgspec.Struct, frozen=True, kw_only=True):
    """One `.pte`: takes images and labels, returns the loss, and trains `parameters`, which carry their values.

    `buffers`, such as running statistics, are updated inside and can be read as attributes of the method.
    """

    file: str
    block: int
    first_unit: int
    last_unit: int
    images: tuple[int, ...]
    labels: tuple[int, ...]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


class TrainingPrograms(msgspec.Struct, frozen=True, kw_only=True):
    """`programs.json`, which names the programs beside it and says what they take."""

    model: str
    programs: tuple[TrainingProgram, ...]


def export_executorch(
    model: str,
    output: Path,
    *,
    width: int | None = None,
    blocks: int | None = None,
    partition: str | None = None,
    block: int | None = None,
    batch: int = 32,
    input_shape: tuple[int, ...] = (3, 32, 32),
    input_dtype: DType | None = None,
    classes: int = 10,
    head: str | None = None,
    seed: int = 0,
    weights: Path | None = None,
    preparation: Preparation = UNCHANGED,
    progress: Callable[[str], None] = lambda line: None,
) -> TrainingPrograms:
    """Write one training program a block into the folder `output`; `weights` replace initial ones.

    Raises UsageError, naming the option, and FormatError for a file of weights that does not fit.
    """
    check_output_folder(output, _PARTS)
    torch.manual_seed(seed)
    module = create_model(model, width=width, classes=classes, input_shape=input_shape, preparation=preparation)
    for note in notes_on(module):
        progress(note)
    dtype = input_dtype or default_dtype(model)
    source = BlockModel.of(
        module, name=model, batch=batch, input_shape=input_shape, classes=classes, head=head, input_dtype=dtype
    )
    check_one_label(source, "executorch")
    cut_into = choose_partition(source, model, blocks=blocks, partition=partition)
    chosen = chosen_blocks(cut_into, block)
    tensors = initial_weights(module, source, cut_into)
    if weights is not None:
        tensors |= read_weights(weights, tensors, needed=module.state_dict())
    images, labels = example_input(batch, input_shape, dtype), torch.zeros(batch, dtype=torch.int64)
    described = []
    with atomic_folder(output, _PARTS) as folder:
        for index in chosen:
            graphs = block_graphs(module, source, cut_into, index)
            for name, tensor in graphs.tensors.items():
                tensor.data.copy_(tensors[name])
            program, buffers = training_program(graphs, images, labels)
            file = f"{label(grow(cut_into, index), cut_into)}.pte"
            with named(output / file):
                (folder / file).write_bytes(program)
            progress(f"{file}: {len(program) / 2**20:.1f} MB")
            units = cut_into.blocks[index - 1]
            described.append(
                TrainingProgram(
                    file=file,
                    block=index,
                    first_unit=units.first_unit,
                    last_unit=units.last_unit,
                    images=tuple(images.shape),
                    labels=tuple(labels.shape),
                    parameters=tuple(sorted(graphs.trained_names())),
                    buffers=buffers,
                )
            )
        programs = TrainingPrograms(model=model, programs=tuple(described))
        write_json(folder / PROGRAMS_NAME, programs)
    return programs


def training_program(graphs: BlockGraphs, images: torch.Tensor, labels: torch.Tensor) -> tuple[bytes, tuple[str, ...]]:
    """A `.pte` with the weights in `graphs`, for (images, labels) of the shapes given, and the buffers it updates.

    Raises UsageError, naming the operators, where ExecuTorch has no portable kernel for the block.
    """
    try:
        # The fused attention's gradient has no portable kernel; written out, it has.
        with quiet(), sdpa_kernel(SDPBackend.MATH):
            exported = torch.export.export(joined_with_loss(graphs), (images, labels), strict=False)
            joint = _export_forward_backward(exported).run_decompositions(get_decompositions(_DECOMPOSED))
            mutated = _mutated_buffers(joint)
            edge = to_edge(joint, compile_config=EdgeCompileConfig(_check_ir_validity=False))
            manager = edge.to_executorch(
                ExecutorchBackendConfig(
                    passes=[InitializedMutableBufferPass(list(mutated))], emit_mutable_buffer_names=True
                )
            )
    except RuntimeError as error:  # which names the operators that have no kernel, over several lines
        raise UsageError(" ".join(str(error).split()), field="target", value="executorch") from None
    except Exception as error:  # whatever the exporters raise at what they do not cover
        raise UsageError(
            f"ExecuTorch cannot export the block: {reason_of(error)}",
            field="target",
            value="executorch",
            remedy=remedy_for(error),
        ) from None
    program = _with_indices(bytes(manager.buffer), outputs=1, gradients=len(graphs.trained_names()))
    _check_operators(program)
    return program, tuple(mutated.values())


def _mutated_buffers(joint: ExportedProgram) -> dict[str, str]:
    """Placeholders and names of the buffers that the step changes; they start from their values in the file."""
    targets = {spec.target for spec in joint.graph_signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION}
    buffers = [spec for spec in joint.graph_signature.input_specs if spec.kind == InputKind.BUFFER]
    return {spec.arg.name: str(spec.target) for spec in buffers if spec.target in targets}


def _with_indices(program: bytes, *, outputs: int, gradients: int) -> bytes:
    """State where gradients and parameters begin among the outputs.

    ExecuTorch 1.5.1 counts mutated buffers, which it does not return: with BatchNorm both indices are too high.
    """
    file = deserialize_pte_binary(program)
    starts = {_GRADIENTS_INDEX: outputs, _PARAMETERS_INDEX: outputs + gradients}
    for plan in file.program.execution_plan:
        if plan.name in starts:
            (result,) = plan.outputs
            plan.values[result] = schema.EValue(schema.Int(starts[plan.name]))
    return bytes(serialize_pte_binary(file))


def _check_operators(program: bytes) -> None:
    """Refuse what the runtime would not load: the wheel's binding knows every portable kernel by name."""
    from executorch.extension.pybindings.portable_lib import _get_operator_names

    known = set(_get_operator_names())
    plan: Any = deserialize_pte_binary(program).program.execution_plan[0]
    missing = sorted({f"{o.name}.{o.overload}" if o.overload else o.name for o in plan.operators} - known)
    if missing:
        raise UsageError(
            f"ExecuTorch has no portable kernel for {', '.join(missing)}", field="target", value="executorch"
        )
