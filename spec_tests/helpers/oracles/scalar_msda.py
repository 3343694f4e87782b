"""Deformable attention one number at a time, in float64, straight from the formulas.

Shares nothing with the reference: no tensors of corners, no library interpolation, no automatic gradients.

    x = loc_x * W - 0.5, y = loc_y * H - 0.5, read only if -1 < x < W and -1 < y < H
    v1 v2   upper left, upper right      fx = x - floor(x)
    v3 v4   lower left, lower right      fy = y - floor(y)
    sample = (1-fy)(1-fx) v1 + (1-fy) fx v2 + fy (1-fx) v3 + fy fx v4, a corner outside the map being 0
    out = sum of a * sample
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Sample(NamedTuple):
    """One sample that touches its map: its index, its fractions, the cells of v1 to v4 (None: outside)."""

    index: tuple[int, int, int, int, int]
    fx: float
    fy: float
    cells: tuple[int | None, int | None, int | None, int | None]
    height: int
    width: int


def forward(value: Array, shapes: list[tuple[int, int]], locations: Array, weights: Array) -> Array:
    """(B, Q, M*D) from value (B, S, M, D), locations (B, Q, M, L, P, 2) and weights (B, Q, M, L, P)."""
    batch, _, heads, channels = value.shape
    output = np.zeros((batch, locations.shape[1], heads * channels))
    for sample in _samples(shapes, locations):
        b, q, m, _, _ = sample.index
        for d in range(channels):
            output[b, q, m * channels + d] += weights[sample.index] * _interpolate(value, sample, d)
    return output


def touched(value: Array, shapes: list[tuple[int, int]], locations: Array) -> NDArray[np.bool_]:
    """(B, S, M), True at each cell that is a corner of a sample, whatever its share."""
    result = np.zeros(value.shape[:3], dtype=bool)
    for sample in _samples(shapes, locations):
        b, _, m, _, _ = sample.index
        result[b, [cell for cell in sample.cells if cell is not None], m] = True
    return result


def gradients(
    value: Array, shapes: list[tuple[int, int]], locations: Array, weights: Array, grad_output: Array
) -> tuple[Array, Array, Array]:
    """Gradients of value, locations and weights.

    da = sum_d g sample;  dv_k = w_k a g;  dloc_x = W a sum_d g [(1 - fy)(v2 - v1) + fy (v4 - v3)];
    dloc_y = H a sum_d g [(1 - fx)(v3 - v1) + fx (v4 - v2)]
    """
    channels = value.shape[3]
    grad_value, grad_locations, grad_weights = (np.zeros_like(a) for a in (value, locations, weights))
    for sample in _samples(shapes, locations):
        b, q, m, _, _ = sample.index
        a, fx, fy = weights[sample.index], sample.fx, sample.fy
        for d in range(channels):
            g = grad_output[b, q, m * channels + d]
            v1, v2, v3, v4 = _corners(value, sample, d)
            grad_weights[sample.index] += g * _interpolate(value, sample, d)
            slope_x = (1 - fy) * (v2 - v1) + fy * (v4 - v3)
            slope_y = (1 - fx) * (v3 - v1) + fx * (v4 - v2)
            grad_locations[(*sample.index, 0)] += sample.width * a * g * slope_x
            grad_locations[(*sample.index, 1)] += sample.height * a * g * slope_y
            for cell, share in zip(sample.cells, _shares(fx, fy), strict=True):
                if cell is not None:
                    grad_value[b, cell, m, d] += share * a * g
    return grad_value, grad_locations, grad_weights


def _samples(shapes: list[tuple[int, int]], locations: Array) -> Iterator[Sample]:
    first_cell = 0
    for level, (height, width) in enumerate(shapes):
        batch, queries, heads, _, points, _ = locations.shape
        for b, q, m, p in itertools.product(range(batch), range(queries), range(heads), range(points)):
            x = float(locations[b, q, m, level, p, 0]) * width - 0.5
            y = float(locations[b, q, m, level, p, 1]) * height - 0.5
            if not (-1 < x < width and -1 < y < height):
                continue
            column, row = math.floor(x), math.floor(y)
            cells = tuple(
                first_cell + i * width + j if 0 <= i < height and 0 <= j < width else None
                for i in (row, row + 1)
                for j in (column, column + 1)
            )
            yield Sample((b, q, m, level, p), x - column, y - row, cells, height, width)
        first_cell += height * width


def _corners(value: Array, sample: Sample, d: int) -> list[float]:
    b, _, m, _, _ = sample.index
    return [0.0 if cell is None else float(value[b, cell, m, d]) for cell in sample.cells]


def _shares(fx: float, fy: float) -> tuple[float, float, float, float]:
    return (1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx


def _interpolate(value: Array, sample: Sample, d: int) -> float:
    corners = _corners(value, sample, d)
    return sum(share * v for share, v in zip(_shares(sample.fx, sample.fy), corners, strict=True))
