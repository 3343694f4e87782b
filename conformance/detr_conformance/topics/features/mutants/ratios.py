"""Valid ratios, one overridable step after another.

They share no code with the reference. Unchanged they are a twin; the mutants and other twins override one step.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detr_conformance.evidence.registry import twin

Level = Bool[Tensor, "batch height width"]
Counts = Float[Tensor, " batch"]


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
