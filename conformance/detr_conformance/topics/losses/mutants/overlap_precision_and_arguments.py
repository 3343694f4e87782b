"""Mutants of generalized IoU: degenerate boxes, accuracy, gradients and errors (GIOU-8 to GIOU-13)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.overlap import Boxes, Ends, GIoUByHand, Table


@mutant("giou-zero-by-zero", rejects="GIOU-8", operation="generalized_box_iou", origin="DETR and torchvision")
class ZeroByZero(GIoUByHand):
    """Divides nothing by nothing."""

    def quotient(self, numerator: Table, denominator: Table) -> Table:
        return numerator / denominator

    def empty_share(self, hull: Table, union: Table) -> Table:
        return (hull - union) / hull


@mutant("giou-nothing-is-equal", rejects="GIOU-8", operation="generalized_box_iou", origin="IoU 1 of two empty sets")
class NothingIsEqual(GIoUByHand):
    """Gives two boxes without area an IoU of 1, wherever they are."""

    def share(self, intersection: Table, union: Table) -> Table:
        return torch.where(union == 0, 1.0, super().share(intersection, union))


@mutant(
    "giou-skipped-without-area", rejects="GIOU-8", operation="generalized_box_iou", origin="where(union > 0, giou, 0)"
)
class SkippedWithoutArea(GIoUByHand):
    """Gives two boxes without area 0, also where the hull between them is empty."""

    def combined(self, intersection: Table, union: Table, hull: Table) -> Table:
        return super().combined(intersection, union, hull) * (union > 0)


@mutant("giou-in-half", rejects="GIOU-9", operation="generalized_box_iou", origin="no conversion")
class InHalf(GIoUByHand):
    """Computes in the dtype of the boxes."""

    def wide(self, boxes: Boxes) -> Boxes:
        return boxes


@mutant(
    "giou-intersection-in-half",
    rejects="GIOU-9",
    operation="generalized_box_iou",
    origin="transformers: box_area alone converts",
)
class IntersectionInHalf(GIoUByHand):
    """Takes the areas of boxes to float32, and not those of intersection and hull."""

    def wide(self, boxes: Boxes) -> Boxes:
        return boxes

    def area(self, boxes: Tensor) -> Tensor:
        return super().area(super().wide(boxes))


@mutant("giou-float32-for-float64", rejects="GIOU-9", operation="generalized_box_iou", origin="boxes.float()")
class Float32ForFloat64(GIoUByHand):
    """Computes in float32 whatever the boxes are."""

    def wide(self, boxes: Boxes) -> Boxes:
        return boxes.float()


@mutant("giou-detached-hull", rejects="GIOU-10", operation="generalized_box_iou", origin="the hull under no_grad")
class DetachedHull(GIoUByHand):
    """Has no gradient through the hull, by which boxes apart find each other."""

    def hull(self, first: Tensor, second: Tensor) -> Table:
        return super().hull(first, second).detach()


@mutant("giou-detached-second", rejects="GIOU-10", operation="generalized_box_iou", origin="targets have no gradient")
class DetachedSecond(GIoUByHand):
    """Has no gradient of the second set."""

    def paired(self, first: Boxes, second: Boxes) -> tuple[Tensor, Tensor]:
        return super().paired(first, second.detach() + 0 * second)


@mutant("giou-area-is-constant", rejects="GIOU-10", operation="generalized_box_iou", origin="areas computed beforehand")
class AreaIsConstant(GIoUByHand):
    """Has no gradient through the areas of the boxes."""

    def area(self, boxes: Tensor) -> Tensor:
        return super().area(boxes).detach()


@mutant(
    "giou-leaky-intersection", rejects="GIOU-10", operation="generalized_box_iou", origin="a straight-through clamp"
)
class LeakyIntersection(GIoUByHand):
    """Passes the gradient of a clamped side on, so that boxes apart have one through an intersection of zero."""

    def extent(self, sides: Ends) -> Table:
        clamped = sides + (sides.relu() - sides).detach()
        return clamped.prod(-1)


@mutant(
    "giou-chosen-after-division",
    rejects="GIOU-11",
    operation="generalized_box_iou",
    origin="where(union > 0, a / b, 0)",
)
class ChosenAfterDivision(GIoUByHand):
    """Divides by zero and takes 0 instead: the gradient of what is not taken is NaN."""

    def quotient(self, numerator: Table, denominator: Table) -> Table:
        return torch.where(denominator != 0, numerator / denominator, 0.0)


@mutant("giou-any-order", rejects="GIOU-12", operation="generalized_box_iou", origin="torchvision's does not check")
class AnyOrder(GIoUByHand):
    """Accepts boxes that are upside down."""

    def check(self, boxes1: Boxes, boxes2: Boxes) -> None:
        pass


@mutant("giou-first-checked", rejects="GIOU-12", operation="generalized_box_iou", origin="the assertion once")
class FirstChecked(GIoUByHand):
    """Checks the first set only."""

    def check(self, boxes1: Boxes, boxes2: Boxes) -> None:
        super().check(boxes1, boxes1)


@mutant("giou-negative-area-checked", rejects="GIOU-12", operation="generalized_box_iou", origin="assert area >= 0")
class NegativeAreaChecked(GIoUByHand):
    """Looks at the average side, which one negative side among others does not make negative."""

    def check(self, boxes1: Boxes, boxes2: Boxes) -> None:
        for boxes in (boxes1, boxes2):
            if boxes.numel() and (boxes[:, 2:] - boxes[:, :2]).mean() < 0:
                raise ValueError("upside-down boxes")


@mutant("giou-nan-to-num", rejects="GIOU-13", operation="generalized_box_iou", origin="nan_to_num for 0 / 0")
class NanToNum(GIoUByHand):
    """Makes a number of every NaN."""

    def check(self, boxes1: Boxes, boxes2: Boxes) -> None:
        if (boxes1[:, :2] > boxes1[:, 2:]).any() or (boxes2[:, :2] > boxes2[:, 2:]).any():
            raise ValueError("upside-down boxes")

    def result(self, first: Tensor, second: Tensor) -> Table:
        return super().result(first, second).nan_to_num()


@mutant(
    "giou-nan-is-no-overlap",
    rejects="GIOU-13",
    operation="generalized_box_iou",
    origin="comparisons with NaN are false",
)
class NanIsNoOverlap(NanToNum):
    """Decides by a comparison, false for NaN, whether boxes overlap, and gives the others -1."""

    def result(self, first: Tensor, second: Tensor) -> Table:
        table = super(NanToNum, self).result(first, second)
        return torch.where(table >= -1, table, -1.0)


@mutant(
    "giou-area-by-products", rejects="GIOU-9", operation="generalized_box_iou", origin="a determinant of the corners"
)
class AreaByProducts(GIoUByHand):
    """Multiplies coordinates before it subtracts, so that far from the origin nothing is left of a small area."""

    def area(self, boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        return (x2 * y2 - x1 * y2) - (x2 * y1 - x1 * y1)


@mutant(
    "giou-gradient-clipped", rejects="GIOU-10", operation="generalized_box_iou", origin="gradients clipped by value"
)
class GradientClipped(GIoUByHand):
    """Keeps gradients within 10, which those of small boxes are not."""

    def corners(self, boxes: Boxes) -> Boxes:
        boxes = boxes.clone()
        if boxes.requires_grad:
            boxes.register_hook(lambda gradient: gradient.clamp(-10, 10))
        return boxes
