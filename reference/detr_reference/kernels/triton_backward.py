"""The backward pass: a program pulls the gradient of a tile of queries back to what they read.

The gradients of weights and locations belong to one program each, which writes them once. Those of the cells are summed
by atomic additions in float32 (float64), in whatever order the programs come; `triton_gather` has a fixed order.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

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


class Wanted(NamedTuple):
    """Which gradients are asked for."""

    value: bool
    locations: bool
    weights: bool


def backward(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
    grad_output: Float[Tensor, "batch query head*channel"],
    *,
    wanted: Wanted,
) -> tuple[Tensor, Tensor, Tensor]:
    """With g of a query and head, weight a, sample s and share w of a corner (d/dx, d/dy: right-hand derivatives of s):

    grad_value[corner] += w * a * g,  grad_location = a * (W * g . ds/dx, H * g . ds/dy),  grad_weight = g . s

    The gradient of value is float32 (float64 where an argument is), the others have the dtypes of their arguments.
    All arguments are contiguous, and none is empty. What is not wanted comes back without elements.
    """
    batch, cells, heads, channels = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    number = compute_dtype(value, sampling_locations, attention_weights)
    grad_value = value.new_zeros(value.shape if wanted.value else 0, dtype=number)
    grad_locations = torch.empty_like(sampling_locations) if wanted.locations else sampling_locations.new_empty(0)
    grad_weights = torch.empty_like(attention_weights) if wanted.weights else attention_weights.new_empty(0)
    if not any(wanted):
        return grad_value, grad_locations, grad_weights
    cut = tiles(batch * heads * queries, channels)
    with torch.cuda.device_of(value):
        backward_kernel[cut.grid](
            value,
            spatial_shapes,
            level_start_index,
            sampling_locations,
            attention_weights,
            grad_output,
            grad_value,
            grad_locations,
            grad_weights,
            batch,
            queries,
            cells,
            HEADS=heads,
            CHANNELS=channels,
            LEVELS=levels,
            POINTS=points,
            ROWS=cut.rows,
            COLUMNS=cut.columns,
            NUMBER=triton_type(number),
            INDEX=index_type(value, sampling_locations, grad_output),
            TO_VALUE=wanted.value,
            TO_LOCATIONS=wanted.locations,
            TO_WEIGHTS=wanted.weights,
            num_warps=cut.warps,
        )
    return grad_value, grad_locations, grad_weights


@triton.jit(do_not_specialize=["images", "queries", "cells"])
@no_type_check
def backward_kernel(
    value,
    spatial_shapes,
    level_start_index,
    sampling_locations,
    attention_weights,
    grad_output,
    grad_value,
    grad_locations,
    grad_weights,
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
    TO_VALUE: tl.constexpr,
    TO_LOCATIONS: tl.constexpr,
    TO_WEIGHTS: tl.constexpr,
):
    image, head, query, exists = rows_of_tile(queries, images, HEADS, ROWS, INDEX)
    pair = (image * queries + query) * HEADS + head
    channel = tl.arange(0, COLUMNS)[None, :]
    is_channel = channel < CHANNELS
    cell_zero = ((image * cells * HEADS + head) * CHANNELS)[:, None] + channel
    gradient = tl.load(
        grad_output + (pair * CHANNELS)[:, None] + channel, mask=exists[:, None] & is_channel, other=0
    ).to(NUMBER)

    for level in range(LEVELS):
        height, width, start = map_of_level(spatial_shapes, level_start_index, level, cells, INDEX)
        for point in range(POINTS):
            sample = (pair * LEVELS + level) * POINTS + point
            x, y, touches = pixel(sampling_locations, sample, exists, height, width, NUMBER)
            weight = tl.load(attention_weights + sample, mask=touches, other=0).to(NUMBER)
            left, top = tl.floor(x), tl.floor(y)
            right_share, lower_share = x - left, y - top
            column, row = left.to(INDEX), top.to(INDEX)

            read = tl.zeros((ROWS, COLUMNS), NUMBER)
            slope_x = tl.zeros((ROWS, COLUMNS), NUMBER)
            slope_y = tl.zeros((ROWS, COLUMNS), NUMBER)
            for down in tl.static_range(2):
                inside_rows = touches & ((row + 1 < height) if down else (row >= 0))
                row_share = lower_share if down else 1 - lower_share
                for across in tl.static_range(2):
                    inside = inside_rows & ((column + 1 < width) if across else (column >= 0))
                    column_share = right_share if across else 1 - right_share
                    cell = start + (row + down) * width + column + across
                    address = cell_zero + (cell * (HEADS * CHANNELS))[:, None]
                    mask = inside[:, None] & is_channel
                    if TO_VALUE:
                        share = (weight * row_share * column_share)[:, None]
                        tl.atomic_add(grad_value + address, share * gradient, mask=mask, sem="relaxed")
                    if TO_LOCATIONS or TO_WEIGHTS:
                        corner = tl.load(value + address, mask=mask, other=0).to(NUMBER)
                        read += (row_share * column_share)[:, None] * corner
                        slope_x += (row_share if across else -row_share)[:, None] * corner
                        slope_y += (column_share if down else -column_share)[:, None] * corner

            if TO_WEIGHTS:
                grad_weight = tl.where(touches, tl.sum(gradient * read, axis=1), 0.0)
                tl.store(grad_weights + sample, grad_weight.to(grad_weights.dtype.element_ty), mask=exists)
            if TO_LOCATIONS:
                along_x = tl.where(touches, weight * width.to(NUMBER) * tl.sum(gradient * slope_x, axis=1), 0.0)
                along_y = tl.where(touches, weight * height.to(NUMBER) * tl.sum(gradient * slope_y, axis=1), 0.0)
                kind = grad_locations.dtype.element_ty
                tl.store(grad_locations + 2 * sample, along_x.to(kind), mask=exists)
                tl.store(grad_locations + 2 * sample + 1, along_y.to(kind), mask=exists)
