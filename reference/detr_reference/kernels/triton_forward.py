"""The forward pass: a program sums what a tile of queries reads, in registers, and writes it once."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.deformable_attention.core import compute_dtype
from detr_reference.kernels.triton_sampling import (
    index_type,
    map_of_level,
    pixel,
    rows_of_tile,
    tiles,
    triton_type,
)


def forward(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """out[b, q, m] = sum over l, p, corner of attention_weights * share of the corner * value[corner]

    All arguments are contiguous, and none is empty.
    """
    batch, cells, heads, channels = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    output = value.new_empty(batch, queries, heads * channels)
    cut = tiles(batch * heads * queries, channels)
    with torch.cuda.device_of(value):
        forward_kernel[cut.grid](
            value,
            spatial_shapes,
            level_start_index,
            sampling_locations,
            attention_weights,
            output,
            batch,
            queries,
            cells,
            HEADS=heads,
            CHANNELS=channels,
            LEVELS=levels,
            POINTS=points,
            ROWS=cut.rows,
            COLUMNS=cut.columns,
            NUMBER=triton_type(compute_dtype(value, sampling_locations, attention_weights)),
            INDEX=index_type(value, sampling_locations, output),
            num_warps=cut.warps,
        )
    return output


@triton.jit(do_not_specialize=["images", "queries", "cells"])
@no_type_check
def forward_kernel(
    value,
    spatial_shapes,
    level_start_index,
    sampling_locations,
    attention_weights,
    output,
    images,
    queries,
    cells,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    NUMBER: tl.constexpr,
    INDEX: tl.constexpr,
):
    image, head, query, exists = rows_of_tile(queries, images, HEADS, ROWS, INDEX)
    pair = (image * queries + query) * HEADS + head
    channel = tl.arange(0, COLUMNS)[None, :]
    is_channel = channel < CHANNELS
    # Of each row the address of its channels in cell 0 of its image.
    cell_zero = value + ((image * cells * HEADS + head) * CHANNELS)[:, None] + channel

    total = tl.zeros((ROWS, COLUMNS), NUMBER)
    for level in range(LEVELS):
        height, width, start = map_of_level(spatial_shapes, level_start_index, level, cells, INDEX)
        for point in range(POINTS):
            sample = (pair * LEVELS + level) * POINTS + point
            x, y, touches = pixel(sampling_locations, sample, exists, height, width, NUMBER)
            weight = tl.load(attention_weights + sample, mask=touches, other=0).to(NUMBER)
            left, top = tl.floor(x), tl.floor(y)
            right_share, lower_share = x - left, y - top
            column, row = left.to(INDEX), top.to(INDEX)
            for down in tl.static_range(2):
                inside_rows = touches & ((row + 1 < height) if down else (row >= 0))
                row_weight = weight * (lower_share if down else 1 - lower_share)
                for across in tl.static_range(2):
                    inside = inside_rows & ((column + 1 < width) if across else (column >= 0))
                    share = row_weight * (right_share if across else 1 - right_share)
                    cell = start + (row + down) * width + column + across
                    corner = tl.load(
                        cell_zero + (cell * (HEADS * CHANNELS))[:, None], mask=inside[:, None] & is_channel, other=0
                    )
                    total += share[:, None] * corner.to(NUMBER)
    tl.store(
        output + (pair * CHANNELS)[:, None] + channel,
        total.to(output.dtype.element_ty),
        mask=exists[:, None] & is_channel,
    )
