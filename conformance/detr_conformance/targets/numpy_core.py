"""Multi-scale deformable attention in NumPy, forward and backward: the readable kernel of arrays.

Levels and corners are loops; all images, queries, heads and points of a level are one array. A corner outside its map
reads a cell of zeros behind the last one, and writes its gradient there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from detr_conformance.adapters.numpy_arrays import from_numpy
from detr_conformance.target import Target

Array = np.ndarray[Any, Any]
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (y, x) above the cell that a sample's floor names


class Corner(NamedTuple):
    """One of the four cells around each sample of a level; every array is (batch, query, head, point)."""

    level: int
    cell: Array  # of the flattened maps; the one behind the last where the corner lies outside
    weight: Array  # its share of the sample
    slope_x: Array  # what this share gains a cell to the right
    slope_y: Array


def ms_deform_attn(
    value: Array, spatial_shapes: Array, level_start_index: Array, sampling_locations: Array, attention_weights: Array
) -> Array:
    """out[b, q, m] = sum over l, p of attention_weights[b, q, m, l, p] * bilinear(value_l[b, m], location)

    Raises:
        ValueError: the arguments disagree.
    """
    check(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    maps, weights, locations = widened(value, attention_weights, sampling_locations)
    batch, queries, heads = weights.shape[:3]
    output = np.zeros((batch, queries, heads, maps.shape[-1]), maps.dtype)
    for corner in corners(spatial_shapes, level_start_index, locations, maps.shape[1] - 1):
        share = weights[:, :, :, corner.level] * corner.weight
        output += (share[..., None] * read(maps, corner.cell)).sum(-2)
    return output.reshape(batch, queries, heads * maps.shape[-1]).astype(value.dtype)


def vjp(
    grad_output: Array,
    value: Array,
    spatial_shapes: Array,
    level_start_index: Array,
    sampling_locations: Array,
    attention_weights: Array,
) -> tuple[Array, None, None, Array, Array]:
    """The gradients of value, locations and weights."""
    maps, weights, locations = widened(value, attention_weights, sampling_locations)
    incoming = grad_output.astype(maps.dtype).reshape(*weights.shape[:3], 1, maps.shape[-1])
    grad_maps, grad_weights, grad_locations = (np.zeros_like(each) for each in (maps, weights, locations))
    for corner in corners(spatial_shapes, level_start_index, locations, maps.shape[1] - 1):
        level, own = corner.level, weights[:, :, :, corner.level]
        reached = (incoming * read(maps, corner.cell)).sum(-1)
        grad_weights[:, :, :, level] += corner.weight * reached
        height, width = spatial_shapes[level]
        grad_locations[:, :, :, level, :, 0] += (own * corner.slope_x * reached) * maps.dtype.type(width)
        grad_locations[:, :, :, level, :, 1] += (own * corner.slope_y * reached) * maps.dtype.type(height)
        np.add.at(grad_maps, places(corner.cell), (own * corner.weight)[..., None] * incoming)
    return (
        grad_maps[:, :-1].astype(value.dtype),
        None,
        None,
        grad_locations.astype(sampling_locations.dtype),
        grad_weights.astype(attention_weights.dtype),
    )


def corners(spatial_shapes: Array, level_start_index: Array, locations: Array, cells: int) -> Iterator[Corner]:
    """The corners of every sample, level by level."""
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        with np.errstate(invalid="ignore", over="ignore"):  # a location that is not finite reads nothing
            x = locations[:, :, :, level, :, 0] * locations.dtype.type(width) - locations.dtype.type(0.5)
            y = locations[:, :, :, level, :, 1] * locations.dtype.type(height) - locations.dtype.type(0.5)
            near = (x > -1) & (x < width) & (y > -1) & (y < height)
        x, y = np.where(near, x, 0), np.where(near, y, 0)
        left, top = np.floor(x), np.floor(y)
        for down, across in CORNERS:
            row, column = (top + down).astype(np.int64), (left + across).astype(np.int64)
            inside = near & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            part_x = x - left if across else 1 - (x - left)
            part_y = y - top if down else 1 - (y - top)
            yield Corner(
                level,
                np.where(inside, level_start_index[level] + row * width + column, cells),
                np.where(inside, part_x * part_y, 0),
                np.where(inside, part_y if across else -part_y, 0),
                np.where(inside, part_x if down else -part_x, 0),
            )


def places(cell: Array) -> tuple[Array, Array, Array]:
    """Image, cell and head of each sample, to index (batch, cell, head, channel) with."""
    batch, _, heads, _ = cell.shape
    return np.arange(batch)[:, None, None, None], cell, np.arange(heads)[:, None]


def read(maps: Array, cell: Array) -> Array:
    """(batch, query, head, point, channel)"""
    found: Array = maps[places(cell)]
    return found


def widened(value: Array, weights: Array, locations: Array) -> tuple[Array, Array, Array]:
    """In float32 or wider; the maps with a cell of zeros behind the last."""
    dtype = np.result_type(np.float32, *(each.dtype for each in (value, weights, locations)))
    maps = np.concatenate((value.astype(dtype), np.zeros((value.shape[0], 1, *value.shape[2:]), dtype)), 1)
    return maps, weights.astype(dtype), locations.astype(dtype)


def check(
    value: Array, spatial_shapes: Array, level_start_index: Array, sampling_locations: Array, attention_weights: Array
) -> None:
    """Raise ValueError unless the arguments agree."""
    sizes = spatial_shapes.prod(-1)
    if value.shape[1] != sizes.sum() or (level_start_index != np.cumsum(sizes) - sizes).any():
        raise ValueError(f"levels {spatial_shapes.tolist()} do not fill the {value.shape[1]} cells of value")
    batch, _, heads, _ = value.shape
    shape = attention_weights.shape
    if sampling_locations.shape != (*shape, 2) or (shape[0], *shape[2:4]) != (batch, heads, len(sizes)):
        raise ValueError(f"locations {sampling_locations.shape}, weights {shape} and value {value.shape} disagree")


target = Target(
    name="numpy-core",
    provides={"ms_deform_attn": from_numpy(ms_deform_attn, vjp)},
    dtypes=("float64", "float32", "float16"),
    features=("backward", "deterministic"),
)
