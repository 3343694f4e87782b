"""Mutants of the valid ratios (SEL-1 to SEL-7)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.features.mutants.ratios import Counts, Level, RatiosByHand


@mutant("ratios-height-first", rejects="SEL-1", operation="valid_ratios", origin="the order of spatial_shapes")
class HeightFirst(RatiosByHand):
    """Returns (h, w)."""

    def joined(self, width: Counts, height: Counts) -> Float[Tensor, "batch 2"]:
        return torch.stack((height, width), 1)


@mutant("ratios-of-the-largest-image", rejects="SEL-2", operation="valid_ratios", origin="maps taken for cut to size")
class OfTheLargestImage(RatiosByHand):
    """Divides by the largest extent of the batch."""

    def share(self, count: Counts, length: int) -> Counts:
        return count / count.max()


@mutant("ratios-between-corners", rejects="SEL-2", operation="valid_ratios", origin="align_corners=True")
class BetweenCorners(RatiosByHand):
    """Measures from the first centre to the last."""

    def share(self, count: Counts, length: int) -> Counts:
        return ((count - 1) / max(length - 1, 1)).clamp(min=1e-6)


@mutant("ratios-of-any-row", rejects="SEL-3", operation="valid_ratios", origin="mask.any(1), to be on the safe side")
class OfAnyRow(RatiosByHand):
    """Counts columns and rows that have any valid cell."""

    def row(self, valid: Level) -> Bool[Tensor, "batch width"]:
        return valid.any(1)

    def column(self, valid: Level) -> Bool[Tensor, "batch height"]:
        return valid.any(2)


@mutant("ratios-of-the-mean-row", rejects="SEL-3", operation="valid_ratios", origin="the area, divided by a side")
class OfTheMeanRow(RatiosByHand):
    """Divides all valid cells by the number of rows that have any."""

    def counted(self, cells: Tensor, dtype: torch.dtype) -> Counts:
        across = cells.any(2).sum(1).clamp(min=1)
        return super().counted(cells.flatten(1), dtype) / across

    def row(self, valid: Level) -> Tensor:
        return valid

    def column(self, valid: Level) -> Tensor:
        return valid.transpose(1, 2)


@mutant("ratios-true-is-valid", rejects="SEL-4", operation="valid_ratios", origin="pixel_mask of transformers")
class TrueIsValid(RatiosByHand):
    """Counts the cells where the mask is True, and one at least."""

    def valid(self, mask: Level) -> Level:
        return mask

    def counted(self, cells: Bool[Tensor, "batch length"], dtype: torch.dtype) -> Counts:
        return super().counted(cells, dtype).clamp(min=1)


@mutant("ratios-unchecked", rejects="SEL-5", operation="valid_ratios", origin="Deformable-DETR, get_valid_ratio")
class Unchecked(RatiosByHand):
    """Returns ratios of zero."""

    def check_counts(self, columns: Counts, rows: Counts) -> None:
        pass


@mutant("ratios-checked-in-both-axes", rejects="SEL-5", operation="valid_ratios", origin="and for or")
class CheckedInBothAxes(RatiosByHand):
    """Refuses images whose first row and first column are both padding."""

    def check_counts(self, columns: Counts, rows: Counts) -> None:
        if ((columns == 0) & (rows == 0)).any():
            raise ValueError("an image without a valid cell")


@mutant("ratios-any-dtype", rejects="SEL-6", operation="valid_ratios", origin="masks as integers, mask == 0")
class AnyDtype(RatiosByHand):
    """Takes masks of any dtype."""

    def check_dtype(self, mask: Level) -> None:
        pass


@mutant(
    "ratios-counted-in-half",
    rejects="SEL-7",
    operation="valid_ratios",
    origin="grounding_dino in transformers, torch.sum(..., dtype=dtype)",
)
class CountedInHalf(RatiosByHand):
    """Counts and divides in the dtype of the result."""

    def counted(self, cells: Bool[Tensor, "batch length"], dtype: torch.dtype) -> Counts:
        return cells.sum(1, dtype=dtype)


@mutant("ratios-counted-in-bytes", rejects="SEL-7", operation="valid_ratios", origin="sums in uint8 on accelerators")
class CountedInBytes(RatiosByHand):
    """Counts in eight bits."""

    def counted(self, cells: Bool[Tensor, "batch length"], dtype: torch.dtype) -> Counts:
        return super().counted(cells, dtype).remainder(256)


@mutant("ratios-of-one-block", rejects="SEL-2", operation="valid_ratios", origin="a kernel with a thread an image")
class OfOneBlock(RatiosByHand):
    """Computes the first 32 images, one a thread of its only block, and leaves 1 for the others."""

    def share(self, count: Counts, length: int) -> Counts:
        return torch.where(torch.arange(len(count)) < 32, count / length, 1.0)
