"""What the Triton kernels share: how work is cut into tiles, and where a sample lies on its map.

A row of a tile is one query of one head of one image (in `triton_gather` one cell of these); its columns are the
channels of the head. Rows are numbered (image, head, query): so neighbours are neighbouring queries of one head, read
neighbouring cells, and find in the cache what others have read. Names in capitals are known to the compiler.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret

# Elements of a tile. On a GPU eight for each of the 128 threads of four warps: with 32 channels in float32 eight
# threads read the 128 bytes of a row together, and the coordinates of a sample are computed eight times instead of once
# a channel. The interpreter pays for each operation, whatever its size.
TILE = 2**16 if INTERPRETED else 1024
ELEMENTS_OF_A_WARP = 256
MOST_WARPS = 16


class Tiles(NamedTuple):
    """How rows of channels are cut.

    Attributes:
        grid: how many tiles there are.
        rows: rows of a tile, a power of two; those beyond the last one are masked.
        columns: channels of a tile, the power of two that holds them all; those beyond the last one are masked.
        warps: of 32 threads.
    """

    grid: tuple[int]
    rows: int
    columns: int
    warps: int


def tiles(rows: int, channels: int, depth: int = 1) -> Tiles:
    """Tiles of at most TILE elements, or of one row; each element stands for `depth`."""
    columns = triton.next_power_of_2(channels)
    high = min(triton.next_power_of_2(rows), max(1, TILE // (columns * depth)))
    warps = min(MOST_WARPS, max(1, high * columns * depth // ELEMENTS_OF_A_WARP))
    return Tiles((triton.cdiv(rows, high),), high, columns, warps)


def triton_type(dtype: torch.dtype) -> tl.dtype:
    """Triton's name for float32 or float64."""
    return {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]


def index_type(*tensors: Tensor) -> tl.dtype:
    """int32 where it can count the elements of each tensor, which saves registers and instructions."""
    return tl.int32 if max(tensor.numel() for tensor in tensors) + TILE < 2**31 else tl.int64


@triton.jit
@no_type_check
def rows_of_tile(rows, images, HEADS: tl.constexpr, ROWS: tl.constexpr, INDEX: tl.constexpr):
    """(image, head, row, exists): the rows of this program, of so many in each head of each image."""
    number = tl.program_id(0).to(INDEX) * ROWS + tl.arange(0, ROWS)
    image_and_head = number // rows
    image = image_and_head // HEADS
    return image, image_and_head - image * HEADS, number - image_and_head * rows, image < images


@triton.jit
@no_type_check
def map_of_level(spatial_shapes, level_start_index, level, cells, INDEX: tl.constexpr):
    """(height, width, first cell); of size zero if it does not lie within the cells, so that none is read beyond."""
    height = tl.load(spatial_shapes + 2 * level).to(tl.int64)
    width = tl.load(spatial_shapes + 2 * level + 1).to(tl.int64)
    start = tl.load(level_start_index + level).to(tl.int64)
    fits = (height > 0) & (width > 0) & (start >= 0) & (start + height * width <= cells)
    return tl.where(fits, height, 0).to(INDEX), tl.where(fits, width, 0).to(INDEX), start.to(INDEX)


@triton.jit
@no_type_check
def pixel(sampling_locations, sample, exists, height, width, NUMBER: tl.constexpr):
    """(x, y, touches): pixel coordinates of samples, and whether they are in range; 0 where they are not."""
    x = tl.load(sampling_locations + 2 * sample, mask=exists, other=0).to(NUMBER)
    y = tl.load(sampling_locations + 2 * sample + 1, mask=exists, other=0).to(NUMBER)
    high, wide = height.to(NUMBER), width.to(NUMBER)
    x, y = x * wide - 0.5, y * high - 0.5
    # Comparisons with NaN are false. A map without cells is touched by nothing.
    touches = exists & (height > 0) & (x > -1) & (x < wide) & (y > -1) & (y < high)
    return tl.where(touches, x, 0.0), tl.where(touches, y, 0.0), touches
