"""A network around one thing, and the ways of making one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from device_profiles.contract import DType
from tests.support.odd_layers import Around, AroundSequence, Function
from tests.support.probes.layers import Tokens, With

IMAGE, SEQUENCE, WORDS = (3, 6, 6), (5, 12), (7,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A network of at most 4 classes, and its inputs."""

    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...] = IMAGE
    input_dtype: DType = "float32"


def image(function: Callable[[Tensor], Tensor], channels: int = 6) -> Probe:
    """Around it."""
    return Probe(make=lambda: Around(Function(function), channels))


def layer(make: Callable[[], nn.Module], channels: int = 6) -> Probe:
    """Around it."""
    return Probe(make=lambda: Around(make(), channels))


def having(function: Callable[..., Tensor], channels: int = 6, **shapes: tuple[int, ...]) -> Probe:
    """Around it."""
    return Probe(make=lambda: Around(With(function, **shapes), channels))


def tokens(make: Callable[[], nn.Module], width: int = 8) -> Probe:
    """Around it."""
    return Probe(make=lambda: Tokens(make(), width), input_shape=SEQUENCE)


def token_function(function: Callable[..., Tensor], width: int = 8, **shapes: tuple[int, ...]) -> Probe:
    """Around it."""
    return tokens(lambda: With(function, **shapes), width)


def sequence(make: Callable[[], nn.Module]) -> Probe:
    """Around it."""
    return Probe(make=lambda: AroundSequence(make()), input_shape=SEQUENCE)


def words(make: Callable[[], nn.Module]) -> Probe:
    """Around it."""
    return Probe(make=make, input_shape=WORDS, input_dtype="int64")


def recurrent(make: Callable[[], nn.Module]) -> Probe:
    """Around it, with few steps of time: a program holds each of them."""
    return Probe(make=make, input_shape=(3, *SEQUENCE[1:]))


def shifted(x: Tensor) -> Tensor:
    """Without values near 0 or below."""
    return x.abs() + 0.5


def written(x: Tensor) -> Tensor:
    """Half of the channels each, written into a tensor of zeros."""
    y = torch.zeros_like(x)
    y[:, :3] = x[:, 3:]
    y[:, 3:] = x[:, :3].tanh()
    return y


def written_in_part(x: Tensor) -> Tensor:
    """Some of a copy is changed in place, and read again afterwards."""
    y = x.clone() + 0.0
    y[:, ::2] *= 2.0
    y[:, 1, 1:].add_(x[:, 0, 1:])
    return y + y[:, :1].tanh()


def written_with_numbers(x: Tensor) -> Tensor:
    """A border of one number."""
    y = x * 1.5
    y[..., 0] = 0.0
    y[:, :, -1] = 0.5
    return y
