"""Contract strings, defined once: file names, roles and tensor names that packages exchange."""

from __future__ import annotations

from typing import Literal

FORMAT_VERSION = 2
"""Version of every JSON document of this package; a reader refuses a version it does not know."""

MANIFEST_NAME = "manifest.json"
PROGRAMS_FOLDER = "programs"
WEIGHTS_FOLDER = "weights"
TIMELINES_NAME = "timelines.json"
COSTS_NAME = "costs.json"
INITIAL_WEIGHTS_NAME = "initial"

Role = Literal["parameter", "running_statistic", "optimizer_state", "gradient_sum", "frozen"]
"""What a tensor is to a program.

`frozen` tensors are inputs that come from a file; the others live in the arena. A `gradient_sum` is of the
micro-batches of one step, and zero between steps.
"""
TRAINED_ROLES: frozenset[Role] = frozenset({"parameter", "running_statistic"})
"""Tensors that have a value before training, and that an update carries; the others start at zero."""

InputRole = Literal["data", "label", "hyperparameter", "random", "frozen"]
DType = Literal["float32", "bfloat16", "int64"]
ITEM_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "int64": 8}
LossName = Literal["cross-entropy", "mse"]
Variant = Literal["default", "recompute", "cached-prefix"]
DEFAULT_VARIANT: Variant = "default"
CACHED_PREFIX_VARIANT: Variant = "cached-prefix"
Augmentation = Literal["crop-flip"]
"""What happens to images before they are trained on: `crop-flip` cuts each out of itself with 4 pixels of black around
it at a random place, and turns half of them over."""
LimitKind = Literal["cgroup-v1", "cgroup-v2", "rlimit", "none"]
Runtime = Literal["native", "torch"]

IMAGES_INPUT = "images"
FEATURES_INPUT = "features"
LABELS_INPUT = "labels"
IGNORED_LABEL = -100
"""The label of a token or pixel that does not count, PyTorch's `ignore_index`."""
HYPERPARAMETERS_INPUT = "hyperparameters"
"""What of the optimizer may differ from one execution to the next, as one float32 vector.

For SGD: learning rate, momentum, weight decay, 1 for Nesterov's momentum (else 0). A step of several micro-batches is
accumulated in the momentum itself: the first execution decays it, the others add to it (momentum 1, weight decay 0),
and only the last one moves the parameters. With a proximal term its factor mu follows, in the first execution only
(else 0), as the weight decay. For AdamW: learning rate, the corrections 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) of
step t, weight decay. Programs that sum the gradients of micro-batches apart take one more: 1 in the last execution of a
step, which updates, else 0. Programs with a label for each token or pixel and several micro-batches take one more at
the end: how many labels of the step's batch count.
"""
RANDOM_INPUT = "random"
"""Seed and number of the execution, int64 [2]: what dropout drops follows from them."""

CONSTANT_PREFIX = "constant."
"""Tensors that a program reads beside those of the model, such as masks: `constant.attention.mask`."""

LORA_A, LORA_B = "lora_a", "lora_b"
"""What takes the place of `weight` in the names of its adapter's matrices: `fc.weight` has `fc.lora_a`."""

STAND_IN_PREFIX = "output_module.block"
"""`output_module.block3.weight` is the convolution that stands in for block 3 (1-based)."""

OPTIMIZER_PREFIX = "optimizer."
"""`optimizer.momentum.conv1.weight` is the SGD momentum of `conv1.weight`."""


def stand_in_name(block: int) -> str:
    """Name of the weight that stands in for `block` (1-based) in an output module."""
    return f"{STAND_IN_PREFIX}{block}.weight"


def lora_names(weight: str) -> tuple[str, str]:
    """Names of both matrices of the adapter of `weight`; their product, the second times the first, is added to it."""
    start = weight.removesuffix("weight")
    return start + LORA_A, start + LORA_B


def optimizer_state_name(slot: str, parameter: str) -> str:
    """Name of an optimizer state tensor; `slot` is `momentum` for SGD."""
    return f"{OPTIMIZER_PREFIX}{slot}.{parameter}"


WORKSPACE_BYTES_PER_THREAD = 1 << 20
"""Tile buffers of the native kernels, per thread; a test holds it against the native module."""
