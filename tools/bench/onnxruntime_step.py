"""onnxruntime-training's side of the benchmark, its on-device API, in an interpreter that has that package.

    PYTHON -m tools.bench.onnxruntime_step prepare FOLDER
    PYTHON -m tools.bench.onnxruntime_step run FOLDER THREADS WARMUP STEPS

`prepare` turns FOLDER/forward.onnx into training artifacts, once; `run` is the measured process. The wheel and the
inference package `onnxruntime` install the same import name, so it needs an environment of its own.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.child import timed_steps

_IR_VERSION = 8
"""The newest that onnxruntime-training 1.19 reads; a younger onnx package stamps its own on the optimizer's graph."""


def _without_torch() -> None:
    """Let submodules of `onnxruntime.training` load without its __init__, which imports torch for other features."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("onnxruntime-training is not installed in this interpreter")
    package = types.ModuleType("onnxruntime.training")
    package.__path__ = [f"{found.submodule_search_locations[0]}/training"]
    sys.modules["onnxruntime.training"] = package


def _fold_frozen_batch_norms(model: Any) -> None:
    """Fold BatchNorm in inference mode into the convolution before it, as is done by hand for this runtime.

    Left as a node it would be trained: artifacts turn every BatchNormalization into one over the batch.
    """
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        attributes = {attribute.name: attribute for attribute in norm.attribute}
        if "training_mode" in attributes and attributes["training_mode"].i:
            continue
        convolution = producers.get(norm.input[0])
        if convolution is None or convolution.op_type != "Conv":
            raise SystemExit("onnxruntime-training: a frozen BatchNorm without a convolution before it")
        scale, shift, mean, variance = (numpy_helper.to_array(tensors[name]) for name in norm.input[1:5])
        factor = scale / np.sqrt(variance + attributes["epsilon"].f)
        weight = numpy_helper.to_array(tensors[convolution.input[1]])
        bias = numpy_helper.to_array(tensors[convolution.input[2]]) if len(convolution.input) > 2 else 0.0
        folded = {
            f"{convolution.name}.folded_weight": weight * factor.reshape(-1, *[1] * (weight.ndim - 1)),
            f"{convolution.name}.folded_bias": (bias - mean) * factor + shift,
        }
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in folded.items())
        del convolution.input[1:]
        convolution.input.extend(folded)
        convolution.output[0] = norm.output[0]
        graph.node.remove(norm)
    read = {name for node in graph.node for name in node.input}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)


def prepare(folder: Path) -> None:
    """Write the training, evaluation and optimizer graphs and the checkpoint of a block."""
    _without_torch()
    import onnx
    from onnxruntime.training import artifacts

    settings = json.loads((folder / "settings.json").read_text())
    model = onnx.load(folder / "forward.onnx")
    _fold_frozen_batch_norms(model)
    initializers = [tensor.name for tensor in model.graph.initializer]
    trained = [name for name in initializers if name in settings["trained"]]
    artifacts.generate_artifacts(
        model,
        requires_grad=trained,
        frozen_params=[name for name in initializers if name not in trained],
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType[settings["optimizer"]],
        artifact_directory=str(folder),
    )
    path = folder / "optimizer_model.onnx"
    optimizer = onnx.load(path)
    optimizer.ir_version = min(optimizer.ir_version, _IR_VERSION)
    onnx.save(optimizer, path)


def run(folder: Path, threads: int, warmup: int, steps: int) -> None:
    """Measure, and print one JSON object."""
    _without_torch()
    import onnxruntime
    from onnxruntime.training import api

    settings = json.loads((folder / "settings.json").read_text())
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    state = api.CheckpointState.load_checkpoint(str(folder / "checkpoint"))
    module = api.Module(str(folder / "training_model.onnx"), state, None, "cpu", options)
    optimizer = api.Optimizer(str(folder / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(settings["optimizer_options"]["lr"])
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    module.train()

    def step() -> float:
        loss = float(module(images, labels))
        optimizer.step()
        module.lazy_reset_grad()
        return loss

    timed_steps(step, warmup=warmup, steps=steps)


def main() -> None:
    """Do what the first argument says."""
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[2]), *map(int, sys.argv[3:6]))


if __name__ == "__main__":
    main()
