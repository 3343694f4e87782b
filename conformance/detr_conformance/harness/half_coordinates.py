"""The variant `coordinates: half` of the deformable core."""

from __future__ import annotations

from torch import Tensor

from detr_reference.deformable_attention.core import ms_deform_attn


def half_coordinates(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Locations pass through the dtype of the value as in grid_sample, once as 2 x - 1 and once on the way back."""
    grid = 2 * locations.to(value.dtype) - 1
    return ms_deform_attn(value, shapes, starts, (grid + 1) / 2, weights)
