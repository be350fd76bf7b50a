"""What a kernel does for an operation, in amounts that take time each: products, transforms, copies, planes, bytes.

It follows how `csrc/kernels` cuts its work: an estimate for predictions of seconds, never of bytes. The prices of these
amounts are in `reference_core.py`; `tools.bench.kernel_times` measures both against each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_runtime.export.ir.graph import Value
from edge_runtime.export.plan.element_amounts import Amounts

LANES = 16
"""Floats of a vector: channels of a product are filled up to whole ones."""
_TILE_ROWS = 8
_WORKSPACE_FLOATS = 1 << 18
"""Of one thread (`csrc/threads/thread_pool.h`)."""


def cut_up(count: int, size: int) -> int:
    """How many pieces of `size` it takes."""
    return -(-count // size)


def filled(count: int, multiple: int) -> int:
    """`count` up to the next whole `multiple`."""
    return cut_up(count, multiple) * multiple


def by_products(columns: int, rows: int, depth: int, weight: int) -> Amounts:
    """Of a product of matrices: multiplications and additions, and the elements of the weight that it reads."""
    return {"product flop": 2.0 * rows * filled(columns, LANES) * depth, "product weights": float(weight)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Convolution:
    """A convolution, or one of its gradients, as the problem that its kernel solves.

    Attributes:
        channels, outputs: That are summed over, and computed, of one group; for the weight gradient those of the layer.
        grid: Height and width of the positions that are computed one by one.
        written: Elements of the result.
        weights_turned: The kernel reads the weight across its rows.
    """

    batch: int
    groups: int
    channels: int
    outputs: int
    taps: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    grid: tuple[int, int]
    written: int
    weights_turned: bool = False
    of_weight: bool = False

    @property
    def is_depthwise(self) -> bool:
        """Whether its groups have one channel each."""
        return self.groups > 1 and (self.outputs if self.weights_turned else self.channels) == 1

    @property
    def pixels(self) -> int:
        """Positions of the whole batch."""
        return self.batch * self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class _Transform:
    """Winograd's: outputs and inputs a side of a tile, points of inputs, weights and sums, products, its name."""

    name: str
    outputs: int
    inputs: int
    halo: int
    input_points: int
    weight_points: int
    sum_points: int
    products: int


_TWO = _Transform("two", 2, 2, 2, 16, 16, 16, 16)
_FOUR = _Transform("four", 4, 4, 2, 36, 36, 36, 36)
_STRIDED = _Transform("strided", 2, 4, 1, 25, 16, 9, 25)
_TRANSPOSED = _Transform("transposed", 4, 2, 2, 16, 16, 25, 25)
_FEWEST_CHANNELS = 16
_WINDOW_PIXELS = 1164


def of_convolution(c: Convolution, *, forward: bool) -> Amounts:
    """Of all groups of a convolution that is not depthwise."""
    transform = transform_of(c, forward=forward)
    if transform is not None:
        amounts = _transformed(c, transform)
    elif c.of_weight:
        amounts = _weight_sums(c)
    else:
        amounts = _direct(c)
    return {name: amount * c.groups for name, amount in amounts.items()}


def transform_of(c: Convolution, *, forward: bool) -> _Transform | None:
    """Winograd's transform that the kernel takes, as `csrc/kernels/convolution/winograd` decides; None for none."""
    smaller = min(c.grid)
    if c.taps != (3, 3) or c.dilation != (1, 1) or min(c.channels, c.outputs) < _FEWEST_CHANNELS or smaller < 2:
        return None
    if c.stride == (1, 1):
        return _TWO if forward or smaller == 2 else _FOUR
    if c.stride != (2, 2):
        return None
    if not c.weights_turned:
        return _STRIDED
    return _TRANSPOSED if c.padding == (1, 1) else None


def _transformed(c: Convolution, t: _Transform) -> Amounts:
    height, width = (cut_up(side, t.outputs) for side in c.grid)
    tiles = c.batch * height * width
    shared = not c.of_weight and 32 < c.channels <= 64
    block_channels = min(64 if shared or t.products <= 25 else 32, filled(c.channels, LANES))
    block_outputs = min(64, filled(c.outputs, LANES))
    scratch = 0 if shared else _WINDOW_PIXELS * LANES
    left = _WORKSPACE_FLOATS - scratch - t.weight_points * block_channels * block_outputs
    most = left // (t.input_points * block_channels + t.sum_points * block_outputs) // _TILE_ROWS * _TILE_ROWS
    window = t.inputs + t.halo
    widest = min((_WINDOW_PIXELS // window - t.halo) // t.inputs, _WINDOW_PIXELS // (2 * t.outputs**2))
    pieces, largest = _cut(c.batch, height, width, min(most, widest) if width > widest else most)
    output_blocks, channel_blocks = cut_up(c.outputs, block_outputs), cut_up(c.channels, block_channels)
    read = tiles * t.input_points * filled(c.channels, LANES) * output_blocks
    if c.of_weight:
        products = 2 * tiles * t.products * filled(c.channels, LANES) * filled(c.outputs, _TILE_ROWS)
        return {
            "winograd flop": products,
            f"{t.name} inputs": read,
            f"{t.name} gradients": tiles * t.sum_points * filled(c.outputs, LANES) * channel_blocks,
            "winograd additions": pieces * t.weight_points * c.channels * c.outputs,
            "updated weights": c.channels * c.outputs * 9,
        }
    weights = t.weight_points * c.channels * filled(c.outputs, LANES)
    again = 0 if c.channels <= 64 else pieces - 1
    return {
        "winograd flop": 2 * pieces * filled(largest, _TILE_ROWS) * t.products * c.channels * filled(c.outputs, LANES),
        f"{t.name} inputs": read,
        f"{t.name} outputs": tiles * t.sum_points * filled(c.outputs, LANES),
        "turned weights" if c.weights_turned else "transformed weights": weights,
        "weights again": weights * again,
        "winograd additions": tiles * t.sum_points * filled(c.outputs, LANES) * (channel_blocks - 1),
    }


_PIECE_PIXELS = 512
_PIECE_DEPTH = 144


def _direct(c: Convolution) -> Amounts:
    taps, pixels = math.prod(c.taps), c.pixels
    flat = taps == 1 and c.stride == (1, 1)
    height, width = (1, c.grid[0] * c.grid[1]) if flat else c.grid
    pieces, largest = _cut(c.batch, height, width, _PIECE_PIXELS)
    channels = max(1, min(_PIECE_DEPTH // taps, c.channels))
    blocks = cut_up(c.channels, channels)
    channels = cut_up(c.channels, blocks)
    left = _WORKSPACE_FLOATS - channels * largest * c.taps[1]
    rows = max(1, left // (filled(largest, LANES) + channels * taps) // _TILE_ROWS) * _TILE_ROWS
    lines_name = "lines" if c.stride == (1, 1) or c.weights_turned else "strided lines"
    weights_name = "packed columns" if c.weights_turned else "packed weights"
    if taps == 1:  # runs of single floats
        lines_name, weights_name = lines_name.replace("lines", "points"), weights_name + " of points"
    return {
        "direct flop": 2 * pieces * filled(largest, LANES) * c.channels * taps * filled(c.outputs, _TILE_ROWS),
        lines_name: c.channels * pixels * c.taps[1] * cut_up(c.outputs, rows),
        weights_name: c.channels * taps * c.outputs * pieces,
        "direct sums": pixels * c.outputs * (blocks - 1),
        "direct pieces": pieces * blocks,
        "written": c.written,
    }


_MOST_COLUMNS = 192


def _weight_sums(c: Convolution) -> Amounts:
    """The weight gradient as direct sums over pixels."""
    taps, pixels = math.prod(c.taps), c.pixels
    depth = c.channels * taps
    output_blocks = cut_up(c.outputs, _MOST_COLUMNS)
    columns = filled(cut_up(c.outputs, output_blocks), LANES)
    left = _WORKSPACE_FLOATS - 128 * columns - _TILE_ROWS * columns
    channels = max(1, left // (taps * columns + max(128 * c.taps[1], 4 * taps)))
    panels = cut_up(columns // LANES, 3)
    return {
        "weight flop": 2 * pixels * filled(depth, _TILE_ROWS) * filled(columns, LANES * panels) * output_blocks,
        "weight lines": c.channels * pixels * c.taps[1] * output_blocks,
        "turned gradients": pixels * filled(c.outputs, LANES) * cut_up(c.channels, channels),
        "summed weights": depth * c.outputs,
    }


def _cut(batch: int, height: int, width: int, most: int) -> tuple[int, int]:
    """Pieces of at most `most` positions, and the largest of them, as `Cut` in `convolution_lines.cpp` makes them."""
    most = max(most, 1)
    if height * width <= most:
        pieces = cut_up(batch, most // (height * width))
        return pieces, cut_up(batch, pieces) * height * width
    if width <= most:
        pieces = cut_up(height, most // width)
        return batch * pieces, cut_up(height, pieces) * width
    pieces = cut_up(width, most)
    return batch * height * pieces, cut_up(width, pieces)


def of_depthwise(c: Convolution) -> Amounts:
    """Of a convolution whose groups have one channel each."""
    work = c.pixels * math.prod(c.taps) * c.groups * c.outputs
    return {"depthwise flop": 2.0 * work, "depthwise planes": float(c.batch * c.groups * c.outputs)}


def shape(value: Value | object) -> tuple[int, ...]:
    """Of an argument that has to be a tensor."""
    assert isinstance(value, Value)  # the operators' contract
    return value.shape
