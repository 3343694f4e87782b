"""Overlap of two boxes in exact arithmetic, by counting: no formula of unions and hulls."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise, product

Corners = Sequence[Fraction]  # x1, y1, x2, y2


def overlaps(first: Corners, second: Corners) -> tuple[Fraction, Fraction, Fraction]:
    """Areas of intersection, union and hull.

    The ends of both boxes cut the hull into at most nine parts; each belongs to both boxes, to one or to none, which
    its centre decides.
    """
    columns = sorted({first[0], first[2], second[0], second[2]})
    rows = sorted({first[1], first[3], second[1], second[3]})
    both = either = every = Fraction(0)
    for (left, right), (top, bottom) in product(pairwise(columns), pairwise(rows)):
        area = (right - left) * (bottom - top)
        centre = ((left + right) / 2, (top + bottom) / 2)
        inside = [_contains(box, centre) for box in (first, second)]
        both += area * all(inside)
        either += area * any(inside)
        every += area
    return both, either, every


def generalized_iou(first: Corners, second: Corners, eps: Fraction = Fraction(0)) -> Fraction:
    """0 / 0 is 0."""
    both, either, every = overlaps(first, second)
    return _quotient(both, either + eps) - _quotient(every - either, every + eps)


def _quotient(numerator: Fraction, denominator: Fraction) -> Fraction:
    return numerator / denominator if denominator else Fraction(0)


def _contains(box: Corners, point: tuple[Fraction, Fraction]) -> bool:
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]
