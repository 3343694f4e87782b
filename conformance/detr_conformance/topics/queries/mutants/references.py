"""Reference points, one overridable step after another.

They share no code with the reference's. Unchanged they are twins; the mutants and other twins of chapter 11 override
one step.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.features.mutants.ratios import wide

Ratios = Float[Tensor, "batch level 2"]
Points = Float[Tensor, "batch cell 2"]


@twin("references-by-hand", operation="encoder_reference_points", origin="Deformable-DETR, get_reference_points")
class ReferencesByHand:
    """Makes a grid for each level and divides it by the valid size."""

    def __call__(self, spatial_shapes: Int[Tensor, "level 2"], valid_ratios: Ratios) -> Float[Tensor, "b s l 2"]:
        sizes = [(height, width) for height, width in spatial_shapes.tolist()]
        self.check_levels(sizes, valid_ratios)
        ratios = valid_ratios.to(self.arithmetic(valid_ratios.dtype))
        levels = [self.on_image(self.level(*size, ratios), ratios, level, size) for level, size in enumerate(sizes)]
        return self.seen(torch.cat(levels, 1), ratios, sizes).to(valid_ratios.dtype)

    def check_levels(self, sizes: list[tuple[int, int]], ratios: Ratios) -> None:
        if len(sizes) != ratios.shape[1]:
            raise ValueError(f"{len(sizes)} levels and {ratios.shape[1]} ratios")

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return wide(dtype)

    def level(self, height: int, width: int, ratios: Ratios) -> Float[Tensor, "cell 2"]:
        """(x, y) of the cells of a level, in cells."""
        y = self.places(height, ratios.dtype)[:, None].expand(height, width)
        x = self.places(width, ratios.dtype)[None].expand(height, width)
        return self.flattened(self.pair(x, y))

    def places(self, length: int, dtype: torch.dtype) -> Float[Tensor, " length"]:
        return torch.arange(length, dtype=dtype) + 0.5

    def pair(self, x: Tensor, y: Tensor) -> Float[Tensor, "height width 2"]:
        return torch.stack((x, y), -1)

    def flattened(self, cells: Float[Tensor, "height width 2"]) -> Float[Tensor, "cell 2"]:
        return cells.reshape(-1, 2)

    def on_image(self, cells: Float[Tensor, "cell 2"], ratios: Ratios, level: int, size: tuple[int, int]) -> Points:
        return cells / self.valid_size(ratios[:, level], size)[:, None]

    def valid_size(self, ratio: Float[Tensor, "batch 2"], size: tuple[int, int]) -> Float[Tensor, "batch 2"]:
        height, width = size
        return ratio * torch.tensor((width, height), dtype=ratio.dtype)

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        return points.unsqueeze(2) * ratios.unsqueeze(1)
