"""Mutants of generalized IoU: its formula (GIOU-1 to GIOU-7)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.overlap import Boxes, Ends, GIoUByHand, Table


@mutant(
    "giou-second-in-rows",
    rejects="GIOU-1",
    operation="generalized_box_iou",
    origin="boxes2[:, None] for boxes1[:, None]",
)
class SecondInRows(GIoUByHand):
    """Has the boxes of the second set in the rows."""

    def paired(self, first: Boxes, second: Boxes) -> tuple[Tensor, Tensor]:
        return first[None], second[:, None]


@mutant(
    "giou-pairs-where-it-can",
    rejects="GIOU-1",
    operation="generalized_box_iou",
    origin="x.view(n, m), filled in the order of the second set",
)
class ColumnByColumn(GIoUByHand):
    """Fills the table column by column and reads it row by row: right in square tables of one set with itself."""

    def result(self, first: Tensor, second: Tensor) -> Table:
        table = super().result(first, second)
        return table.T.reshape(table.shape)


@mutant("giou-no-boxes", rejects="GIOU-1", operation="generalized_box_iou", origin="boxes.max() > 1 to detect pixels")
class NoBoxes(GIoUByHand):
    """Looks at the largest coordinate, which an image without boxes does not have."""

    def check(self, boxes1: Boxes, boxes2: Boxes) -> None:
        super().check(boxes1, boxes2)
        if not (boxes1.max().isfinite() and boxes2.max().isfinite()):
            raise ValueError("infinite boxes")


@mutant("giou-whole-blocks", rejects="GIOU-1", operation="generalized_box_iou", origin="a kernel's grid, rounded down")
class WholeBlocks(GIoUByHand):
    """Computes whole blocks of 256 rows where there is more than one; the rest stays 0."""

    def result(self, first: Tensor, second: Tensor) -> Table:
        table = super().result(first, second)
        return table * (torch.arange(len(table)) < max(256, len(table) // 256 * 256))[:, None]


@mutant("giou-clamp-missing", rejects="GIOU-2", operation="generalized_box_iou", origin="clamp(min=0) forgotten")
class ClampMissing(GIoUByHand):
    """Multiplies negative sides."""

    def extent(self, sides: Ends) -> Table:
        return sides.prod(-1)


@mutant("giou-clamped-product", rejects="GIOU-2", operation="generalized_box_iou", origin="(w * h).clamp(min=0)")
class ClampedProduct(GIoUByHand):
    """Clamps the area and not the sides: boxes apart along both axes overlap."""

    def extent(self, sides: Ends) -> Table:
        return sides.prod(-1).relu()


@mutant(
    "giou-corner-inside", rejects="GIOU-2", operation="generalized_box_iou", origin="tests whether a corner is inside"
)
class CornerInside(GIoUByHand):
    """Sees an overlap only where a box contains a corner of the other, which the arms of a cross do not."""

    def intersection(self, first: Tensor, second: Tensor) -> Table:
        inside = self.contains_a_corner(first, second) | self.contains_a_corner(second, first)
        return torch.where(inside, super().intersection(first, second), 0.0)

    def contains_a_corner(self, box: Tensor, other: Tensor) -> Tensor:
        (x1, y1, x2, y2), corners = box.unbind(-1), other.unbind(-1)
        found = torch.zeros((), dtype=torch.bool)
        for x in (corners[0], corners[2]):
            for y in (corners[1], corners[3]):
                found = found | ((x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2))
        return found


@mutant("giou-intersection-twice", rejects="GIOU-3", operation="generalized_box_iou", origin="area1 + area2 as union")
class IntersectionTwice(GIoUByHand):
    """Counts the intersection twice."""

    def union(self, area1: Tensor, area2: Tensor, intersection: Table) -> Table:
        return area1 + area2 + 0 * intersection


@mutant("giou-union-sign", rejects="GIOU-3", operation="generalized_box_iou", origin="a sign")
class UnionSign(GIoUByHand):
    """Adds the intersection to the areas."""

    def union(self, area1: Tensor, area2: Tensor, intersection: Table) -> Table:
        return area1 + area2 + intersection


@mutant("giou-over-the-smaller", rejects="GIOU-3", operation="generalized_box_iou", origin="intersection over minimum")
class OverTheSmaller(GIoUByHand):
    """Divides the intersection by the smaller box: a box inside another is perfect."""

    def result(self, first: Tensor, second: Tensor) -> Table:
        intersection, area1, area2 = self.intersection(first, second), self.area(first), self.area(second)
        union, hull = self.union(area1, area2, intersection), self.hull(first, second)
        return self.share(intersection, torch.minimum(area1, area2)) - self.empty_share(hull, union)


@mutant("giou-areas-of-the-first", rejects="GIOU-3", operation="generalized_box_iou", origin="area1 for area2")
class AreasOfTheFirst(GIoUByHand):
    """Takes the second box to be as large as the first."""

    def union(self, area1: Tensor, area2: Tensor, intersection: Table) -> Table:
        return super().union(area1, area1, intersection)


@mutant("giou-without-hull", rejects="GIOU-4", operation="generalized_box_iou", origin="box_iou in its place")
class WithoutHull(GIoUByHand):
    """Returns the plain IoU."""

    def empty_share(self, hull: Table, union: Table) -> Table:
        return 0 * hull


@mutant("giou-hull-over-union", rejects="GIOU-4", operation="generalized_box_iou", origin="the wrong denominator")
class HullOverUnion(GIoUByHand):
    """Divides the empty part of the hull by the union."""

    def empty_share(self, hull: Table, union: Table) -> Table:
        return self.quotient(hull - union, union)


@mutant(
    "giou-hull-less-intersection", rejects="GIOU-4", operation="generalized_box_iou", origin="(hull - inter) / hull"
)
class HullLessIntersection(GIoUByHand):
    """Takes for empty what is not covered by both."""

    def combined(self, intersection: Table, union: Table, hull: Table) -> Table:
        return self.share(intersection, union) - self.empty_share(hull, intersection)


@mutant(
    "giou-hull-of-the-intersection", rejects="GIOU-4", operation="generalized_box_iou", origin="max and min exchanged"
)
class HullOfTheIntersection(GIoUByHand):
    """Has the largest lower and the smallest upper ends in the hull."""

    def hull(self, first: Tensor, second: Tensor) -> Table:
        low = torch.max(first[..., :2], second[..., :2])
        high = torch.min(first[..., 2:], second[..., 2:])
        return (high - low).abs().prod(-1)


@mutant("giou-at-least-zero", rejects="GIOU-4", operation="generalized_box_iou", origin="clamp(0, 1), as of an IoU")
class AtLeastZero(GIoUByHand):
    """Has no negative values, so boxes apart are all the same."""

    def result(self, first: Tensor, second: Tensor) -> Table:
        return super().result(first, second).clamp(min=0)


@mutant("giou-distance", rejects="GIOU-4", operation="generalized_box_iou", origin="DIoU, arXiv:1911.08287")
class Distance(GIoUByHand):
    """Subtracts the squared distance of the centres as a share of the hull's diagonal."""

    def result(self, first: Tensor, second: Tensor) -> Table:
        intersection = self.intersection(first, second)
        union = self.union(self.area(first), self.area(second), intersection)
        apart = ((first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2).square().sum(-1)
        low = torch.min(first[..., :2], second[..., :2])
        high = torch.max(first[..., 2:], second[..., 2:])
        return self.share(intersection, union) - self.quotient(apart, (high - low).square().sum(-1))


@mutant("giou-corner-and-size", rejects="GIOU-5", operation="generalized_box_iou", origin="COCO's (x, y, w, h)")
class CornerAndSize(GIoUByHand):
    """Takes the upper corner for width and height."""

    def corners(self, boxes: Boxes) -> Boxes:
        return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), -1)


@mutant("giou-centre-and-size", rejects="GIOU-5", operation="generalized_box_iou", origin="cxcywh not converted before")
class CentreAndSize(GIoUByHand):
    """Takes corners for centre and size."""

    def corners(self, boxes: Boxes) -> Boxes:
        return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), -1)


@mutant(
    "giou-areas-of-centres", rejects="GIOU-5", operation="generalized_box_iou", origin="area as w * h of cxcywh boxes"
)
class AreasOfCentres(GIoUByHand):
    """Multiplies the last two coordinates for the area."""

    def area(self, boxes: Tensor) -> Tensor:
        return boxes[..., 2] * boxes[..., 3]


@mutant("giou-epsilon", rejects="GIOU-6", operation="generalized_box_iou", origin="DINO and detrex: + 1e-6")
class Epsilon(GIoUByHand):
    """Adds 1e-6 to both denominators."""

    def quotient(self, numerator: Table, denominator: Table) -> Table:
        return numerator / (denominator + 1e-6)

    def empty_share(self, hull: Table, union: Table) -> Table:
        return self.quotient(hull - union, hull)


@mutant("giou-least-area", rejects="GIOU-6", operation="generalized_box_iou", origin="mmdet: max(union, eps), eps 1e-6")
class LeastArea(GIoUByHand):
    """Takes areas below 1e-6 for 1e-6."""

    def quotient(self, numerator: Table, denominator: Table) -> Table:
        return numerator / denominator.clamp(min=1e-6)

    def empty_share(self, hull: Table, union: Table) -> Table:
        least = hull.clamp(min=1e-6)
        return (least - union.clamp(min=1e-6)) / least


@mutant("giou-pixels-inclusive", rejects="GIOU-7", operation="generalized_box_iou", origin="Pascal VOC: x2 - x1 + 1")
class PixelsInclusive(GIoUByHand):
    """Counts the last pixel where coordinates are pixels."""

    def corners(self, boxes: Boxes) -> Boxes:
        pixels = (boxes > 2).any()
        return torch.cat((boxes[:, :2], boxes[:, 2:] + pixels.to(boxes)), -1)


@mutant("giou-inside-the-image", rejects="GIOU-7", operation="generalized_box_iou", origin="boxes.clamp(0, 1)")
class InsideTheImage(GIoUByHand):
    """Cuts boxes off at the left and upper border of the image."""

    def corners(self, boxes: Boxes) -> Boxes:
        return boxes.clamp(min=0)
