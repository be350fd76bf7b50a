"""Small bundles to damage: `python -m tools.fuzz.corpus FOLDER`, then `fuzz_programs 60 SEED FOLDER/*/programs/*.pte`.

Between them their programs call every operator of the table, each on tensors that are as small as its ways of computing
allow: a fuzzer runs them some thousand times a second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from executorch.exir._serialize._program import deserialize_pte_binary
from torch import Tensor, nn

from device_profiles.manifest import Loss, Optimizer
from device_profiles.operators import table
from edge_runtime.export.emit.pte import NAMESPACE
from edge_runtime.export.targets.native import export_bundle
from tests.support.odd_layers import Around, Function
from tests.support.odd_models import ODD
from tests.support.probes import PROBES

_SGD = Optimizer(name="sgd", momentum=0.9, weight_decay=5e-4)
_IMAGE: dict[str, Any] = {"input_shape": (3, 8, 8), "classes": 4, "batch": 2}
_WORDS: dict[str, Any] = {"input_shape": (7,), "input_dtype": "int64", "classes": 3, "batch": 2}
_ODD = (
    "conv_transpose_groups",
    "pixel_shuffle",
    "instance_norm",
    "group_norm_silu",
    "squeeze_excite",
    "softplus",
    "prelu",
    "upsample_nearest",
    "upsample_corners",
    "strided_slices",
    "gathered",
    "repeat",
    "hierarchical",
    "power",
    "softmax_over_channels",
    "stack",
)


def _normed(channels: int, layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


def _wide(middle: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """With 16 channels in the middle, where convolutions go through transforms and vectors of channels."""
    return lambda: nn.Sequential(
        nn.Conv2d(3, 16, 1), middle(), nn.Conv2d(16, 6, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )


def _pooled(x: Tensor) -> Tensor:
    x = nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 1, 0)), 3, 2, 1)
    return nn.functional.adaptive_max_pool2d(nn.functional.avg_pool2d(x, 2, 1), 2)


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    import torch

    module = make().eval()
    module(torch.zeros(2, 3, 8, 8))  # gives lazy layers their sizes
    return module.train()


def winograd() -> nn.Module:
    """3x3 convolutions of stride 1 and 2 with enough channels."""
    return _made(
        _wide(
            lambda: nn.Sequential(
                _normed(16, nn.Conv2d(16, 16, 3, padding=1, bias=False)),
                _normed(16, nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False)),
            )
        )
    )


def depthwise() -> nn.Module:
    """Depthwise convolutions of several kernels and strides."""
    return _made(
        _wide(
            lambda: nn.Sequential(
                _normed(16, nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False)),
                _normed(16, nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False)),
                nn.Conv2d(16, 16, (1, 3), stride=(1, 2), groups=4),
            )
        )
    )


def pools() -> nn.Module:
    """Pooling over windows of every kind, and a BatchNorm that no convolution stands before."""
    return Around(nn.Sequential(Function(_pooled), nn.BatchNorm2d(6), Function(nn.functional.gelu)))


def _ordered(x: Tensor) -> Tensor:
    return x.sin() + x.cumsum(2) + x.topk(3, 1).values.mean(1, keepdim=True) + x.amax((2, 3), keepdim=True)


def ordered() -> nn.Module:
    """Formulas of elements, the largest in order and of all, and running sums."""
    return Around(Function(_ordered))


def padded() -> nn.Module:
    """Tokens, some of which are padding."""
    return PROBES["padding"].make()


def counted() -> nn.Module:
    """Words at places that the model counts itself."""
    return PROBES["last_word"].make()


_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (f"tests.support.odd_models:{name}", {**_IMAGE, **ODD[name].options}) for name in _ODD},
    **{name: (f"tools.fuzz.corpus:{name}", _IMAGE) for name in ("winograd", "depthwise", "pools", "ordered")},
    "summing": (
        "tools.fuzz.corpus:pools",
        {**_IMAGE, "batch": 4, "micro_batch": 2, "optimizer": Optimizer(name="adamw", clip_norm=1.0)},
    ),
    "proximal": (
        "tools.fuzz.corpus:winograd",
        {**_IMAGE, "optimizer": Optimizer(name="sgd", momentum=0.9, momentum_dtype="bfloat16", proximal=True)},
    ),
    "gathered_jointly": ("tests.support.odd_models:gathered", {**_IMAGE, **ODD["gathered"].options, "joint": True}),
    "squared": ("tools.fuzz.corpus:depthwise", {**_IMAGE, "loss": Loss(name="mse"), "joint": True}),
    "words": ("tests.support.token_models:causal_reader", {**_WORDS, "input_shape": (9,)}),
    "padded": ("tools.fuzz.corpus:padded", {**_WORDS, "classes": 4}),
    "counted": ("tools.fuzz.corpus:counted", {**_WORDS, "classes": 4}),
    "labelled": (
        "tests.support.position_models:tagger",
        {"input_shape": (7,), "input_dtype": "int64", "classes": 5, "batch": 4, "micro_batch": 2, "partition": "0-1"},
    ),
    "narrowed": ("tools.fuzz.corpus:winograd", {**_IMAGE, "train_units": "head", "frozen_dtype": "bfloat16"}),
    "written_out": ("tests.support.token_models:written_out", {"input_shape": (6, 10), "classes": 4, "batch": 2}),
    "dropping": (
        "tests.support.token_models:text",
        {
            **_WORDS,
            "input_shape": (12,),
            "classes": 4,
            "batch": 4,
            "micro_batch": 2,
            "optimizer": Optimizer(name="sgd", momentum=0.9, nesterov=True),
        },
    ),
    "vit": ("tests.support.token_models:vit_with_dropout", {**_IMAGE, "input_shape": (3, 32, 32), "classes": 10}),
}


def write_corpus(folder: Path) -> set[str]:
    """Export all of them into `folder`; returns the operators that none of them calls."""
    called: set[str] = set()
    for name, (model, options) in _MODELS.items():
        export_bundle(model, folder / name, seed=1, **{"optimizer": _SGD, **options})
        for path in sorted((folder / name / "programs").glob("*.pte")):
            (plan,) = deserialize_pte_binary(path.read_bytes()).program.execution_plan
            called |= {operator.name.removeprefix(f"{NAMESPACE}::") for operator in plan.operators}
        print(name, flush=True)
    return set(table().operators) - called


def main() -> int:
    """Write the corpus; says which operators no program calls, and fails where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    missing = write_corpus(parser.parse_args().folder)
    if missing:
        print("no program calls:", ", ".join(sorted(missing)))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
