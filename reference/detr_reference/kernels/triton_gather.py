"""The value gradient in a fixed order: each cell fetches from the samples that touch it, instead of being sent to.

Samples are sorted by the upper left of their four corners (at the edge of a map by the first cell inside). What touches
a cell then stands in four runs: those of the cell itself, of its left, its upper and its upper left neighbour. The sort
keeps samples of one run in their order, so that every call adds up in the same order. It takes tens of bytes a sample,
which the atomic additions do not.

Runs are long where maps are small. So DEPTH samples of a run are taken at a time, into as many sums, and these are
summed at the end.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.deformable_attention.core import compute_dtype
from detr_reference.kernels.triton_sampling import (
    INTERPRETED,
    TILE,
    map_of_level,
    pixel,
    rows_of_tile,
    tiles,
    triton_type,
)

DEPTH = 32 if INTERPRETED else 8


def gather_value_gradient(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
    grad_output: Float[Tensor, "batch query head*channel"],
) -> Float[Tensor, "batch cell head channel"]:
    """grad_value[cell] = sum over the samples that touch it, in a fixed order, of share * weight * grad_output

    Float32 (float64 where an argument is). All arguments are contiguous, and none is empty.
    """
    batch, cells, heads, channels = value.shape
    levels, points = sampling_locations.shape[3:5]
    number = compute_dtype(value, sampling_locations, attention_weights)
    grad_value = torch.empty_like(value, dtype=number)
    sizes = (spatial_shapes, level_start_index)
    order, run_starts = _sorted_samples(value, *sizes, sampling_locations, triton_type(number))
    cut = tiles(batch * heads * cells, channels, DEPTH)
    with torch.cuda.device_of(value):
        gather_kernel[cut.grid](
            order,
            run_starts,
            *sizes,
            sampling_locations,
            attention_weights,
            grad_output,
            grad_value,
            batch,
            cells,
            HEADS=heads,
            CHANNELS=channels,
            LEVELS=levels,
            SAMPLES=levels * points,
            ROWS=cut.rows,
            DEPTH=DEPTH,
            COLUMNS=cut.columns,
            NUMBER=triton_type(number),
            num_warps=cut.warps,
        )
    return grad_value


def _sorted_samples(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_locations: Tensor, number: tl.dtype
) -> tuple[Int[Tensor, " sample"], Int[Tensor, " run"]]:
    """The samples by (image, head, cell), and where the run of each of these begins; those that touch nothing last."""
    batch, cells, heads, _ = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    samples, runs = batch * queries * heads * levels * points, batch * heads * cells
    run_of_sample = torch.empty(samples, dtype=torch.int64, device=value.device)
    with torch.cuda.device_of(value):
        run_kernel[(triton.cdiv(samples, TILE),)](
            spatial_shapes,
            level_start_index,
            sampling_locations,
            run_of_sample,
            samples,
            runs,
            queries,
            cells,
            HEADS=heads,
            LEVELS=levels,
            POINTS=points,
            TILE=TILE,
            NUMBER=number,
        )
    run_of_sample, order = torch.sort(run_of_sample, stable=True)
    return order, torch.searchsorted(run_of_sample, torch.arange(runs + 1, device=value.device))


@triton.jit(do_not_specialize=["samples", "runs", "queries", "cells"])
@no_type_check
def run_kernel(
    spatial_shapes,
    level_start_index,
    sampling_locations,
    run_of_sample,
    samples,
    runs,
    queries,
    cells,
    HEADS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    TILE: tl.constexpr,
    NUMBER: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    exists = sample < samples
    level = sample // POINTS % LEVELS
    head = sample // (POINTS * LEVELS) % HEADS
    image = sample // (POINTS * LEVELS * HEADS) // queries
    height, width, start = map_of_level(spatial_shapes, level_start_index, level, cells, tl.int64)
    x, y, touches = pixel(sampling_locations, sample, exists, height, width, NUMBER)
    row, column = tl.maximum(tl.floor(y).to(tl.int64), 0), tl.maximum(tl.floor(x).to(tl.int64), 0)
    run = (image * HEADS + head) * cells + start + row * width + column
    tl.store(run_of_sample + sample, tl.where(touches, run, runs), mask=exists)


@triton.jit(do_not_specialize=["images", "cells"])
@no_type_check
def gather_kernel(
    order,
    run_starts,
    spatial_shapes,
    level_start_index,
    sampling_locations,
    attention_weights,
    grad_output,
    grad_value,
    images,
    cells,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    SAMPLES: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    NUMBER: tl.constexpr,
):
    image, head, cell, exists = rows_of_tile(cells, images, HEADS, ROWS, tl.int64)
    channel = tl.arange(0, COLUMNS)[None, :]
    is_channel = channel < CHANNELS

    height, width, place = tl.zeros_like(cell), tl.zeros_like(cell), tl.zeros_like(cell)
    for level in range(LEVELS):
        high, wide, start = map_of_level(spatial_shapes, level_start_index, level, cells, tl.int64)
        here = (cell >= start) & (cell < start + high * wide)
        height, width = tl.where(here, high, height), tl.where(here, wide, width)
        place = tl.where(here, cell - start, place)
    row = place // tl.maximum(width, 1)
    column = place - row * width

    total = tl.zeros((ROWS, DEPTH, COLUMNS), NUMBER)
    for down in range(2):
        for across in range(2):
            has_run = exists & (width > 0) & (row >= down) & (column >= across)
            run = (image * HEADS + head) * cells + cell - down * width - across
            begin = tl.load(run_starts + run, mask=has_run, other=0)
            end = tl.load(run_starts + run + 1, mask=has_run, other=0)
            for step in range(0, tl.max(end - begin, axis=0), DEPTH):
                entry = begin[:, None] + step + tl.arange(0, DEPTH)[None, :]
                in_run = entry < end[:, None]
                sample = tl.load(order + entry, mask=in_run, other=0)
                x, y, touches = pixel(sampling_locations, sample, in_run, height[:, None], width[:, None], NUMBER)
                off_x, off_y = tl.abs(x - column[:, None].to(NUMBER)), tl.abs(y - row[:, None].to(NUMBER))
                # What lies beyond the edge of a map stands in runs of the first cells inside, and may not touch them.
                touches = touches & (off_x < 1) & (off_y < 1)
                weight = tl.load(attention_weights + sample, mask=touches, other=0).to(NUMBER)
                share = tl.where(touches, weight * (1 - off_x) * (1 - off_y), 0.0)
                gradient = tl.load(
                    grad_output + (sample // SAMPLES * CHANNELS)[:, :, None] + channel[:, None, :],
                    mask=touches[:, :, None] & is_channel[:, None, :],
                    other=0,
                )
                total += share[:, :, None] * gradient.to(NUMBER)
    address = ((image * cells + cell) * HEADS + head) * CHANNELS
    tl.store(grad_value + address[:, None] + channel, tl.sum(total, axis=1), mask=exists[:, None] & is_channel)
