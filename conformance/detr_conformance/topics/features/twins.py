"""Right valid ratios, each written in another way than the reference."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.features.mutants.ratios import Counts, RatiosByHand


@twin("ratios-by-mean", operation="valid_ratios", origin="the mean of a row of ones and zeros")
class ByMean(RatiosByHand):
    """Takes the mean of the row and of the column, in float64."""

    def counted(self, cells: Bool[Tensor, "batch length"], dtype: torch.dtype) -> Counts:
        return cells.double().mean(1)

    def share(self, count: Counts, length: int) -> Counts:
        return count


@twin("ratios-by-reciprocal", operation="valid_ratios", origin="1 / W computed once")
class ByReciprocal(RatiosByHand):
    """Multiplies by the reciprocal of the side."""

    def share(self, count: Counts, length: int) -> Counts:
        return count * torch.tensor(length, dtype=count.dtype).reciprocal()
