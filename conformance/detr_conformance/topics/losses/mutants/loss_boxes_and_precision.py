"""Mutants of the detection losses: L1, generalized IoU, precision (LOSS-7 to LOSS-9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.losses import (
    Losses,
    LossesByHand,
    Predicted,
    Some,
)


@mutant("losses-l1-mean", rejects="LOSS-7", operation="detection_losses", origin="F.l1_loss's default")
class L1Mean(LossesByHand):
    """Averages the four coordinates."""

    def l1(self, ours: Some, theirs: Some) -> Tensor:
        return super().l1(ours, theirs) / 4


@mutant("losses-l1-of-corners", rejects="LOSS-7", operation="detection_losses", origin="boxes converted too early")
class L1OfCorners(LossesByHand):
    """Takes the distance of corners."""

    def l1(self, ours: Some, theirs: Some) -> Tensor:
        return super().l1(self.matching.corners(ours), self.matching.corners(theirs))


@mutant("losses-smooth-l1", rejects="LOSS-7", operation="detection_losses", origin="smooth_l1_loss of box regressions")
class SmoothL1(LossesByHand):
    """Takes the smooth L1 distance."""

    def l1(self, ours: Some, theirs: Some) -> Tensor:
        return F.smooth_l1_loss(ours, theirs, reduction="sum", beta=1 / 9)


@mutant("losses-boxes-in-order", rejects="LOSS-7", operation="detection_losses", origin="the permutation forgotten")
class BoxesInOrder(LossesByHand):
    """Compares queries with boxes in the order of the boxes."""

    def three(self, at: Predicted) -> Losses:
        losses = super().three(at)
        ours = torch.cat([at.boxes[image, query] for image, (query, _) in enumerate(at.pairs)])
        theirs = torch.cat([at.batch.boxes[image][: len(box)] for image, (_, box) in enumerate(at.pairs)])
        return losses | {f"loss_bbox{at.suffix}": self.divided(self.l1(ours, theirs), at.number)}


@mutant("losses-giou-of-all-pairs", rejects="LOSS-8", operation="detection_losses", origin="diag() left out")
class GIoUOfAllPairs(LossesByHand):
    """Adds up the whole matrix of predictions and targets."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        return (1 - self.matching.giou(ours, theirs, eps)).sum()


@mutant("losses-iou", rejects="LOSS-8", operation="detection_losses", origin="box_iou in place of generalized_box_iou")
class WithoutHull(LossesByHand):
    """Leaves out the hull."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        a, b = self.matching.corners(ours), self.matching.corners(theirs)
        shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
        both = ours[:, 2:].prod(-1) + theirs[:, 2:].prod(-1) - shared
        return (1 - shared / both).sum()


@mutant("losses-giou-logarithm", rejects="LOSS-8", operation="detection_losses", origin="UnitBox's -log IoU")
class GIoULogarithm(LossesByHand):
    """Takes the negative logarithm."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        return -((1 + self.matching.giou(ours, theirs, eps).diagonal()) / 2).log().sum()


@mutant("losses-giou-with-eps", rejects="LOSS-8", operation="detection_losses", origin="DINO and detrex, undeclared")
class GIoUWithEps(LossesByHand):
    """Adds 1e-6 to the denominators, without the variant that says so."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        return super().giou(ours, theirs, 1e-6)


@mutant("losses-giou-as-corners", rejects="LOSS-8", operation="detection_losses", origin="a conversion left out")
class GIoUAsCorners(LossesByHand):
    """Takes centre and size for corners."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        return (1 - _of_corners(ours, theirs)).sum()


def _of_corners(a: Some, b: Some) -> Tensor:
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(-1)
    both = areas[0] + areas[1] - shared
    return shared / both - (hull - both) / hull


@mutant("losses-in-half", rejects="LOSS-9", operation="detection_losses", origin="no conversion at all")
class InHalf(LossesByHand):
    """Computes in the dtype of the predictions."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@mutant("losses-summed-in-half", rejects="LOSS-9", operation="detection_losses", origin="a running total")
class SummedInHalf(LossesByHand):
    """Adds up the focal losses of the queries one after another in half precision."""

    kept = torch.float32

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        self.kept = dtype
        return super().wide(dtype)

    def summed(self, loss: Tensor) -> Tensor:
        total = loss.new_zeros((), dtype=self.kept)
        for each in loss.flatten(0, -2).sum(-1):
            total = total + each.to(self.kept)
        return total.to(loss.dtype)
