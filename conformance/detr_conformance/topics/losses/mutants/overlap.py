"""Generalized IoU, one overridable step after another, and other right ways to write it.

Unchanged the steps are a twin; the mutants of GIOU-1 to GIOU-13 override one of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import twin

Boxes = Float[Tensor, "box 4"]
Pairs = Float[Tensor, "one other"]
Ends = Float[Tensor, "one other 2"]
Table = Float[Tensor, "one other"]


@twin("giou-by-hand", operation="generalized_box_iou", origin="IoU plus the share of the hull that is covered, less 1")
class GIoUByHand:
    """Adds the shares of the union that both boxes cover and of the hull that either covers."""

    def __call__(self, boxes1: Boxes, boxes2: Boxes, *, eps: float = 0.0) -> Table:
        if eps:
            raise NotImplementedError("the variant without an epsilon")
        self.check(boxes1, boxes2)
        dtype = boxes1.dtype
        first, second = (self.corners(self.wide(boxes)) for boxes in (boxes1, boxes2))
        return self.result(*self.paired(first, second)).to(dtype)

    def check(self, boxes1: Boxes, boxes2: Boxes) -> None:
        for boxes in (boxes1, boxes2):
            if not (boxes[:, :2] <= boxes[:, 2:]).all():
                raise ValueError(f"an upside-down box among {boxes.tolist()}")

    def wide(self, boxes: Boxes) -> Boxes:
        return boxes if boxes.dtype == torch.float64 else boxes.float()

    def corners(self, boxes: Boxes) -> Boxes:
        return boxes

    def paired(self, first: Boxes, second: Boxes) -> tuple[Float[Tensor, "one 1 4"], Float[Tensor, "1 other 4"]]:
        return first.unsqueeze(1), second.unsqueeze(0)

    def result(self, first: Tensor, second: Tensor) -> Table:
        intersection = self.intersection(first, second)
        union = self.union(self.area(first), self.area(second), intersection)
        return self.combined(intersection, union, self.hull(first, second))

    def combined(self, intersection: Table, union: Table, hull: Table) -> Table:
        return self.share(intersection, union) - self.empty_share(hull, union)

    def area(self, boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        return (x2 - x1) * (y2 - y1)

    def intersection(self, first: Tensor, second: Tensor) -> Table:
        low = torch.max(first[..., :2], second[..., :2])
        high = torch.min(first[..., 2:], second[..., 2:])
        return self.extent(high - low)

    def extent(self, sides: Ends) -> Table:
        return sides[..., 0].relu() * sides[..., 1].relu()

    def union(self, area1: Tensor, area2: Tensor, intersection: Table) -> Table:
        return area1 + (area2 - intersection)

    def hull(self, first: Tensor, second: Tensor) -> Table:
        low = torch.min(first[..., :2], second[..., :2])
        high = torch.max(first[..., 2:], second[..., 2:])
        return (high - low).prod(-1)

    def share(self, intersection: Table, union: Table) -> Table:
        return self.quotient(intersection, union)

    def empty_share(self, hull: Table, union: Table) -> Table:
        return torch.where(hull > 0, 1 - self.quotient(union, hull), 0.0)

    def quotient(self, numerator: Table, denominator: Table) -> Table:
        """0 where nothing is divided by nothing; what is not divided has no gradient."""
        positive = denominator != 0
        return torch.where(positive, numerator, 0.0) / torch.where(positive, denominator, 1.0)


@twin("giou-sides", operation="generalized_box_iou", origin="max(a, b) + min(a, b) = a + b")
class Sides(GIoUByHand):
    """Has the side of the hull from both sides and their overlap, which is negative between boxes apart."""

    def hull(self, first: Tensor, second: Tensor) -> Table:
        overlap = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
        sides = (first[..., 2:] - first[..., :2]) + (second[..., 2:] - second[..., :2]) - overlap
        return sides[..., 0] * sides[..., 1]


@twin("giou-centres", operation="generalized_box_iou", origin="the overlap of two balls in the maximum norm")
class Centres(GIoUByHand):
    """Has overlap and hull from the distance of the centres and the sides."""

    def reach(self, first: Tensor, second: Tensor) -> tuple[Ends, Ends, Ends]:
        side1, side2 = first[..., 2:] - first[..., :2], second[..., 2:] - second[..., :2]
        distance = ((first[..., :2] - second[..., :2]) + (first[..., 2:] - second[..., 2:])).abs()
        return side1, side2, distance

    def intersection(self, first: Tensor, second: Tensor) -> Table:
        side1, side2, distance = self.reach(first, second)
        meeting = (side1 + side2 - distance) / 2
        return self.extent(torch.minimum(torch.minimum(side1, side2), meeting))

    def hull(self, first: Tensor, second: Tensor) -> Table:
        side1, side2, distance = self.reach(first, second)
        around = (side1 + side2 + distance) / 2
        return torch.maximum(torch.maximum(side1, side2), around).prod(-1)


@twin("giou-row-by-row", operation="generalized_box_iou", origin="chunked over predictions, to save memory")
class RowByRow(GIoUByHand):
    """Takes one box of the first set after the other, the last one first."""

    def result(self, first: Tensor, second: Tensor) -> Table:
        rows = [super(RowByRow, self).result(box[None], second) for box in first.flip(0)]
        return torch.cat(rows).flip(0) if rows else (first * second).sum(-1)
