"""A bundle whose programs are only described: for what is decided from a manifest and weights alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save_file

from device_profiles.contract import WORKSPACE_BYTES_PER_THREAD, InputRole, Role
from device_profiles.files import sha256_of, write_json
from device_profiles.manifest import FileEntry, Manifest, MemoryPlan, Optimizer, Program, ProgramInput, ProgramTensor
from device_profiles.model import Model, Partition, TensorSpec, Unit
from device_profiles.optimizers import OPTIMIZERS
from device_profiles.work import ProgramWork, block_of, distill, grow, joint, label, of_block
from edge_runtime.device.prepare.bundle import Bundle, open_bundle
from tests.support.partitions import blocks_of_one_unit

_WEIGHT = (2, 3)
_NOTHING = MemoryPlan(
    arena_bytes=0,
    live_bytes=0,
    frozen_bytes=0,
    workspace_bytes_per_thread=WORKSPACE_BYTES_PER_THREAD,
    staging_bytes=0,
    parameters_bytes=0,
    gradients_bytes=0,
    optimizer_state_bytes=0,
    activations_bytes=0,
    temporaries_bytes=0,
)
Shapes = dict[str, tuple[int, ...]]


def paper_bundle(
    folder: Path, *, blocks: int, proximal: bool = False, fixed: bool = False, prefix: str = "", stand_ins: bool = True
) -> Bundle:
    """Blocks of a weight and a bias (and with `fixed` a tensor that nothing trains), stand-ins and a head.

    Its files of programs are empty. With `proximal`, training programs also read what they train.
    """
    held = [_block(index, prefix, fixed) for index in range(1, blocks + 1)]
    head: Shapes = {f"{prefix}head.weight": _WEIGHT}
    behind: list[Shapes] = [
        {f"output_module.block{index}.weight": _WEIGHT} if stand_ins and index > 1 else {}
        for index in range(1, blocks + 1)
    ]
    every = _joined([*held, *behind, head])
    described = list(_programs(held, behind, head, proximal))
    (folder / "weights").mkdir(parents=True)
    (folder / "programs").mkdir()
    save_file(
        {n: np.full(shape, 0.25, np.float32) for n, shape in every.items()}, folder / "weights/initial.safetensors"
    )
    for program in described:
        (folder / f"programs/{program.name}.pte").write_bytes(b"")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    write_json(folder / "manifest.json", _manifest(folder, held, head, described, files))
    return open_bundle(folder)


def tensors_of(bundle: Bundle, program: str, role: str) -> Shapes:
    """Names and shapes of a program's tensors of a role."""
    return {t.name: t.shape for t in bundle.manifest.program(program).tensors if t.role == role}


def _block(index: int, prefix: str, fixed: bool) -> Shapes:
    shapes: Shapes = {f"{prefix}block{index}.weight": _WEIGHT, f"{prefix}block{index}.bias": (2,)}
    return shapes | ({f"{prefix}block{index}.fixed": (1,)} if fixed else {})


def _programs(held: list[Shapes], behind: list[Shapes], head: Shapes, proximal: bool) -> list[Program]:
    programs = []
    count = len(held)
    partition = blocks_of_one_unit(count)
    for block in range(1, count + 1):
        before, after = _joined(held[: block - 1]), _joined([*behind[block:], head])
        programs.append(_program(grow(partition, block), partition, before, held[block - 1] | after, proximal=proximal))
        programs.append(_program(of_block("eval", partition, block), partition, before | held[block - 1] | after, {}))
        if block > 1:
            programs.append(_program(of_block("features", partition, block), partition, before, {}))
            student = behind[block - 1] | (head if block == count else {})
            programs.append(_program(distill(partition, block), partition, before | held[block - 1] | after, student))
    for first in range(1, count):
        before, trained = _joined(held[: first - 1]), _joined([*held[first - 1 :], head])
        programs.append(_program(joint(partition, first, count), partition, before, trained))
    return programs


def _program(
    work: ProgramWork,
    partition: Partition,
    frozen: Shapes,
    trained: Shapes,
    *,
    proximal: bool = False,
) -> Program:
    changed = {name: shape for name, shape in trained.items() if not name.endswith(".fixed")}
    read = frozen | {name: shape for name, shape in trained.items() if proximal or name not in changed}
    role: InputRole = "frozen"
    parameter: Role = "parameter"
    inputs = [ProgramInput(name=n, role=role, dtype="float32", shape=shape) for n, shape in read.items()]
    if trained:
        count = OPTIMIZERS["sgd"].hyperparameters + proximal
        inputs.append(ProgramInput(name="hyperparameters", role="hyperparameter", dtype="float32", shape=(count,)))
    return Program(
        name=label(work, partition),
        work=work,
        block=block_of(work, partition),
        batch=2,
        micro_batch=2,
        variant="default",
        optimizer=Optimizer(name="sgd", proximal=proximal) if trained else None,
        inputs=tuple(inputs),
        tensors=tuple(ProgramTensor(name=n, role=parameter, dtype="float32", shape=s) for n, s in changed.items()),
        prefix_instructions=0,
        instructions=1,
        memory=_memory(inputs),
    )


def _memory(inputs: list[ProgramInput]) -> MemoryPlan:
    """No arena: every input is outside it and is charged as a manifest must charge it."""
    frozen = sum(-(-value.size_bytes // 64) * 64 for value in inputs if value.role == "frozen")
    staging = sum(value.size_bytes for value in inputs if value.role not in ("frozen", "data"))
    return msgspec.structs.replace(_NOTHING, frozen_bytes=frozen, staging_bytes=staging)


def _manifest(folder: Path, held: list[Shapes], head: Shapes, programs: list[Program], files: list[Path]) -> Manifest:
    units = tuple(
        Unit(name=f"block{i}", input_shape=(3,), output_shape=(3,), tensors=tuple(shapes), parameter_bytes=0)
        for i, shapes in enumerate(held, start=1)
    )
    model = Model(
        name="paper",
        input_shape=(3,),
        classes=2,
        units=units,
        head=tuple(head),
        tensors=tuple(TensorSpec(name=n, dtype="float32", shape=s) for n, s in _joined([*held, head]).items()),
    )
    return Manifest(
        created_by="tests",
        model=model,
        partition=blocks_of_one_unit(len(held)),
        programs=tuple(programs),
        files=tuple(
            FileEntry(path=str(f), size_bytes=(folder / f).stat().st_size, sha256=sha256_of(folder / f)) for f in files
        ),
    )


def _joined(parts: list[Shapes]) -> Shapes:
    whole: Shapes = {}
    for part in parts:
        whole |= part
    return whole
