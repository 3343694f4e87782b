"""The deformable attention module in NumPy, a head, level and point at a time, on top of the scalar loop."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from helpers.oracles import scalar_msda

Array = NDArray[np.float64]


def forward(
    parameters: Mapping[str, Array],
    sizes: tuple[int, int, int],
    shapes: list[tuple[int, int]],
    query: Array,
    value: Array,
    identity: Array,
    query_pos: Array,
    padding: NDArray[np.bool_],
    reference_points: Array,
) -> Array:
    """(B, Q, C); sizes is (heads, levels, points), padding (B, S) is True where a cell does not count."""
    heads, levels, points = sizes
    batch, queries, embed = query.shape
    locations = np.zeros((batch, queries, heads, levels, points, 2))
    weights = np.zeros((batch, queries, heads, levels, points))
    for b, q in np.ndindex(batch, queries):
        asking = query[b, q] + query_pos[b, q]
        offsets = parameters["sampling_offsets.weight"] @ asking + parameters["sampling_offsets.bias"]
        logits = parameters["attention_weights.weight"] @ asking + parameters["attention_weights.bias"]
        for h in range(heads):
            own = np.exp(logits[h * levels * points : (h + 1) * levels * points])
            for level, point in np.ndindex(levels, points):
                weights[b, q, h, level, point] = own[level * points + point] / own.sum()
                at = 2 * ((h * levels + level) * points + point)
                reference = reference_points[b, q, level]
                height, width = shapes[level]
                if len(reference) == 2:
                    x = reference[0] + offsets[at] / width
                    y = reference[1] + offsets[at + 1] / height
                else:
                    x = reference[0] + offsets[at] / points * reference[2] / 2
                    y = reference[1] + offsets[at + 1] / points * reference[3] / 2
                locations[b, q, h, level, point] = x, y

    projected = np.zeros(value.shape)
    for b, s in np.ndindex(padding.shape):
        if not padding[b, s]:
            projected[b, s] = parameters["value_proj.weight"] @ value[b, s] + parameters["value_proj.bias"]
    by_head = projected.reshape(batch, -1, heads, embed // heads)
    read = scalar_msda.forward(by_head, shapes, locations, weights)
    return identity + read @ parameters["output_proj.weight"].T + parameters["output_proj.bias"]
