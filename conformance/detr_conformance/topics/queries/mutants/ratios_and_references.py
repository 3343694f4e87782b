"""Ratios and reference points, one overridable step after another.

They share no code with the reference. Unchanged they are twins; the mutants and other twins of chapter 11 override
one step.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin

RATIOS, REFERENCES = "valid_ratios", "encoder_reference_points"

Level = Bool[Tensor, "batch height width"]
Counts = Float[Tensor, " batch"]
Ratios = Float[Tensor, "batch level 2"]
Points = Float[Tensor, "batch cell 2"]


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@twin("ratios-by-hand", operation="valid_ratios", origin="Deformable-DETR, get_valid_ratio")
class RatiosByHand:
    """Adds up the valid cells of a row and of a column."""

    def __call__(self, mask_l: Level, *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "batch 2"]:
        self.check_dtype(mask_l)
        valid = self.valid(mask_l)
        columns, rows = self.counted(self.row(valid), dtype), self.counted(self.column(valid), dtype)
        self.check_counts(columns, rows)
        width, height = self.share(columns, mask_l.shape[2]), self.share(rows, mask_l.shape[1])
        return self.joined(width, height).to(dtype)

    def check_dtype(self, mask: Level) -> None:
        if mask.dtype is not torch.bool:
            raise TypeError(f"a mask of {mask.dtype}")

    def valid(self, mask: Level) -> Level:
        return mask.logical_not()

    def row(self, valid: Level) -> Bool[Tensor, "batch width"]:
        return valid[:, 0]

    def column(self, valid: Level) -> Bool[Tensor, "batch height"]:
        return valid[:, :, 0]

    def counted(self, cells: Bool[Tensor, "batch length"], dtype: torch.dtype) -> Counts:
        return cells.to(wide(dtype)).sum(1)

    def check_counts(self, columns: Counts, rows: Counts) -> None:
        if not torch.compiler.is_compiling() and (columns * rows == 0).any():
            raise ValueError("an image without a valid cell in its first row or column")

    def share(self, count: Counts, length: int) -> Counts:
        return count / length

    def joined(self, width: Counts, height: Counts) -> Float[Tensor, "batch 2"]:
        return torch.stack((width, height), 1)


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
