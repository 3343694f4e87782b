"""Modulated deformable convolution, one number at a time (arXiv:1703.06211; v2, arXiv:1811.11168).

    y[o, p] = sum over taps k and input channels c of weight[o, c, k] * m_k(p) * x_c(p + p_k + offset_k(p))

Stride 1, bilinear interpolation, zeros outside the map; channels fall into groups with offsets of their own.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def deform_conv(x: Array, weight: Array, taps: list[tuple[int, int]], offset: Array, mask: Array) -> Array:
    """(O, H, W) from x (C, H, W), weight (O, C, K), K taps (dy, dx), offset (G, K, 2, H, W) as (dy, dx), and
    mask (G, K, H, W); channel c belongs to group c // (C / G).
    """
    channels, height, width = x.shape
    groups = offset.shape[0]
    y = np.zeros((weight.shape[0], height, width))
    for i, j in itertools.product(range(height), range(width)):
        for c, (k, (dy, dx)) in itertools.product(range(channels), enumerate(taps)):
            g = c // (channels // groups)
            row, column = i + dy + offset[g, k, 0, i, j], j + dx + offset[g, k, 1, i, j]
            y[:, i, j] += weight[:, c, k] * mask[g, k, i, j] * _bilinear(x[c], row, column)
    return y


def _bilinear(plane: Array, row: float, column: float) -> float:
    total = 0.0
    for i, j in itertools.product(range(plane.shape[0]), range(plane.shape[1])):
        total += max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j)) * plane[i, j]
    return total


def square_taps(radius: int) -> list[tuple[int, int]]:
    """(dy, dx) of a (2 radius + 1)^2 kernel, row by row."""
    side = range(-radius, radius + 1)
    return [(dy, dx) for dy in side for dx in side]
