"""Random calls of every kernel, with what PyTorch computes in float64: each operator has one generator of them."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from tests.support.geometries import (
    convolution,
    elementwise,
    formulas,
    normalisation,
    ordering,
    rows,
    tokens,
    training,
    windows,
)
from tests.support.geometries.draw import Call, Draw
from tests.support.geometries.harness import try_call

Generator = Callable[[Draw], Call]

GENERATORS: dict[str, Generator] = {
    generator.__name__: generator
    for generator in (
        convolution.conv2d,
        convolution.conv2d_input_grad,
        convolution.conv2d_weight_grad,
        convolution.conv2d_weight_grad_sgd,
        convolution.conv2d_frozen,
        normalisation.batch_norm_train,
        normalisation.batch_norm_apply,
        normalisation.batch_norm_backward,
        normalisation.batch_norm_frozen,
        normalisation.group_norm,
        normalisation.group_norm_backward,
        rows.layer_norm,
        rows.layer_norm_apply,
        rows.layer_norm_backward,
        rows.softmax,
        rows.softmax_backward,
        normalisation.channel_sum,
        elementwise.activation,
        elementwise.activation_backward,
        elementwise.gelu,
        elementwise.gelu_backward,
        elementwise.add,
        elementwise.arithmetic,
        elementwise.affine,
        elementwise.broadcast,
        elementwise.sum_to,
        elementwise.permute,
        elementwise.cat,
        elementwise.crop,
        elementwise.dropout,
        elementwise.fill,
        elementwise.is_set,
        elementwise.strided_copy,
        elementwise.strided_copy_backward,
        formulas.expression,
        ordering.top,
        ordering.top_backward,
        ordering.running_sum,
        ordering.to_float,
        ordering.to_whole,
        ordering.widen,
        windows.max_pool2d,
        windows.max_pool2d_backward,
        windows.average_pool2d,
        windows.average_pool2d_backward,
        windows.global_average_pool,
        windows.global_average_pool_backward,
        windows.resample2d,
        windows.resample2d_backward,
        tokens.linear,
        tokens.linear_input_grad,
        tokens.linear_weight_grad,
        tokens.linear_weight_grad_sgd,
        tokens.matmul,
        tokens.attention,
        tokens.attention_backward,
        tokens.take,
        tokens.take_backward,
        tokens.embedding,
        tokens.embedding_weight_grad,
        training.sgd,
        training.adamw,
        training.clip_factor,
        training.scale_by,
        training.cross_entropy,
        training.cross_entropy_of_batch,
        training.mean_squared_error,
    )
}


def random_call(operator: str, seed: int) -> Call:
    """The call of a seed: the same on every machine."""
    return GENERATORS[operator](Draw([crc32(operator.encode()), seed]))


def complaints(operator: str, seed: int, *, guards: bool = True) -> list[str]:
    """What is wrong with the call of a seed, each with what it takes to see it again."""
    call = random_call(operator, seed)
    return [f"--operator {operator} --seed {seed}: {what}: {call.describe()}" for what in try_call(call, guards=guards)]
