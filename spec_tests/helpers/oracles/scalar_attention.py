"""Multi-head attention in plain Python numbers: an image, a head, a query and a key at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def forward(
    parameters: Mapping[str, Array],
    heads: int,
    asking: Array,
    compared: Array,
    averaged: Array,
    identity: Array,
    bias: Callable[[int, int, int, int], float],
) -> Array:
    """(B, Q, C).

    Args:
        asking, compared, averaged: what is projected to q, k and v, positions included.
        bias: (image, head, query, key) -> what is added to the score; -inf forbids.
    """
    batch, queries, embed = asking.shape
    keys, size = compared.shape[1], embed // heads
    weight, offset = parameters["in_proj_weight"], parameters["in_proj_bias"]

    def projected(row: Array, third: int, channel: int) -> float:
        at = third * embed + channel
        return float(sum(weight[at, c] * row[c] for c in range(embed)) + offset[at])

    joined = np.zeros((batch, queries, embed))
    for b, m, q in np.ndindex(batch, heads, queries):
        channels = range(m * size, (m + 1) * size)
        powers = []
        for k in range(keys):
            product = sum(projected(asking[b, q], 0, c) * projected(compared[b, k], 1, c) for c in channels)
            powers.append(math.exp(product / math.sqrt(size) + bias(b, m, q, k)))
        total = sum(powers)
        for k, power in enumerate(powers):
            for c in channels:
                if power > 0:
                    joined[b, q, c] += power / total * projected(averaged[b, k], 2, c)
    return identity + joined @ parameters["out_proj.weight"].T + parameters["out_proj.bias"]
