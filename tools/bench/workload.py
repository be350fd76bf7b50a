"""What is measured: a model's bundle, and for every block what the peers need to train the same."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from device_profiles.contract import INITIAL_WEIGHTS_NAME, MANIFEST_NAME, WEIGHTS_FOLDER
from device_profiles.errors import ExecutionError
from device_profiles.files import read_json
from device_profiles.manifest import Manifest, Optimizer
from device_profiles.work import grow, label
from edge_runtime.device import _native
from edge_runtime.export.models.factory import create_model
from edge_runtime.export.optimizers import optimizer_of
from edge_runtime.export.plan.block_model import BlockModel
from edge_runtime.export.plan.loads import floating_point_operations
from edge_runtime.export.step.train_step import StepVariant, build_train_step
from edge_runtime.export.targets.block_module import BlockGraphs, block_graphs, joined

ROOT = Path(__file__).resolve().parents[2]
_LEARNING_RATE = 0.01  # that of `profl-edge bench`


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The model and how it is cut and trained; the texts are those of `profl-edge export`."""

    model: str
    width: int | None
    input_shape: tuple[int, ...]
    classes: int
    blocks: int | None
    partition: str | None
    batch: int
    export_options: str = ""

    def command(self, output: Path) -> list[str]:
        """`profl-edge export` of this model."""
        options = {
            "--model": self.model,
            "--width": self.width,
            "--input": "x".join(map(str, self.input_shape)),
            "--classes": self.classes,
            "--blocks": self.blocks,
            "--partition": self.partition,
            "--batch": self.batch,
        }
        given = [str(part) for pair in options.items() if pair[1] is not None for part in pair]
        program = [sys.executable, "-m", "edge_runtime.device", "export"]
        return [*program, *given, *shlex.split(self.export_options), "-o", str(output)]

    def described(self) -> str:
        """How it differs from the built-in model with its default blocks, in one text; `settings` compare it."""
        parts = {
            "width": self.width,
            "input": "x".join(map(str, self.input_shape)),
            "classes": self.classes,
            "blocks": self.blocks,
            "partition": self.partition,
        }
        return " ".join([*(f"{k} {v}" for k, v in parts.items() if v is not None), self.export_options]).strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockWork:
    """One block: what a step computes, and the folder with its peers' inputs.

    Attributes:
        operations: multiplications and additions of a step, without recomputation.
        prefix_operations: those of the frozen prefix.
    """

    index: int
    units: str
    folder: Path
    operations: int
    prefix_operations: int


class Workload:
    """A bundle and its blocks, prepared below `folder`."""

    def __init__(self, request: Request, folder: Path) -> None:
        self.request = request
        self.folder = folder
        self.bundle = folder / "bundle"
        done = subprocess.run(request.command(self.bundle), cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExecutionError(done.stderr.strip().splitlines()[-1].removeprefix("profl-edge: error: "))
        self.manifest = read_json(self.bundle / MANIFEST_NAME, Manifest)
        self._module = create_model(
            request.model, width=request.width, classes=request.classes, input_shape=request.input_shape
        )
        self._source = BlockModel.of(
            self._module,
            name=request.model,
            batch=request.batch,
            input_shape=request.input_shape,
            classes=request.classes,
        )
        self._weights = load_file(self.bundle / WEIGHTS_FOLDER / f"{INITIAL_WEIGHTS_NAME}.safetensors")

    @property
    def block_count(self) -> int:
        """Blocks of the partition."""
        return len(self.manifest.partition.blocks)

    def block(self, index: int) -> BlockWork:
        """Prepare one block (1-based) for PyTorch and count its arithmetic."""
        partition = self.manifest.partition
        graphs = self._graphs(index)
        folder = self.folder / f"block{index}"
        folder.mkdir()
        optimizer = self._optimizer(index)
        _write_settings(folder, graphs, optimizer)
        (folder / "block.py").write_text(_source_code(graphs))
        torch.save({name: tensor.detach().clone() for name, tensor in graphs.tensors.items()}, folder / "tensors.pt")
        self._write_batch(folder)
        block = partition.blocks[index - 1]
        step = build_train_step(
            prefix=self._source.cut.units[: block.first_unit],
            active=self._source.cut.units[block.first_unit : block.last_unit + 1],
            stand_ins=self._source.stand_ins(partition, index),
            head=self._source.cut.head,
            shapes=self._source.cut.shapes,
            tensor_shapes=self._source.tensor_shapes(partition),
            optimizer=optimizer_of(optimizer),
            variant=StepVariant(),
        )
        return BlockWork(
            index=index,
            units=f"{block.first_unit}-{block.last_unit}",
            folder=folder,
            operations=floating_point_operations(step.operations),
            prefix_operations=floating_point_operations(step.operations[: step.prefix_operations]),
        )

    def write_onnx(self, work: BlockWork) -> None:
        """The forward pass as ONNX; PyTorch's older exporter is the one that keeps BatchNorm's training mode."""
        images = torch.from_numpy(np.load(work.folder / "images.npy"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                torch.onnx.export(
                    joined(self._graphs(work.index)),
                    (images,),
                    str(work.folder / "forward.onnx"),
                    input_names=["images"],
                    output_names=["logits"],
                    training=torch.onnx.TrainingMode.PRESERVE,
                    do_constant_folding=False,
                    opset_version=17,
                    dynamo=False,
                )
            except torch.onnx.errors.OnnxExporterError as error:
                raise ExecutionError(f"torch.onnx.export: {str(error).splitlines()[0]}") from None

    def _graphs(self, index: int) -> BlockGraphs:
        graphs = block_graphs(self._module, self._source, self.manifest.partition, index)
        for name, tensor in graphs.tensors.items():
            tensor.data.copy_(self._weights[name])
        return graphs

    def _optimizer(self, index: int) -> Optimizer:
        partition = self.manifest.partition
        optimizer = self.manifest.program(label(grow(partition, index), partition)).optimizer
        assert optimizer is not None  # of a training program
        return optimizer

    def _write_batch(self, folder: Path) -> None:
        """The batch on which `profl-edge bench` trains."""
        images = np.empty((self.request.batch, *self.request.input_shape), np.float32)
        _native.fill_evenly(images)
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", np.arange(self.request.batch) % self.request.classes)


def _write_settings(folder: Path, graphs: BlockGraphs, optimizer: Optimizer) -> None:
    ours = optimizer_of(optimizer)
    settings = {
        "optimizer": ours.torch_name,
        "optimizer_options": {"lr": _LEARNING_RATE, **ours.torch_options()},
        "trained": sorted(graphs.trained_names()),
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def _source_code(graphs: BlockGraphs) -> str:
    """The block as functions `prefix` and `trained` of (modules, input), in PyTorch's own operators."""
    parts = ["import torch\nfrom math import inf, nan\nfrom torch import device\n"]
    for name, graph in (("prefix", graphs.prefix), ("trained", graphs.trained)):
        if graph is not None:
            source: str = graph.python_code("self").src
            parts.append(source.strip().replace("def forward(", f"def {name}(", 1))
    return "\n\n".join(parts) + "\n"
