"""Costs and losses of chapter 15 with Python's floats, one query and one box at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Numbers = Sequence[float]
Box = Sequence[float]  # cx, cy, w, h


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(logits: Numbers) -> list[float]:
    powers = [math.exp(x - max(logits)) for x in logits]
    return [power / sum(powers) for power in powers]


def l1(a: Box, b: Box) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def giou(a: Box, b: Box) -> float:
    """By intervals on each axis."""
    sides = []
    for axis in (0, 1):
        (low, high), (other_low, other_high) = [
            (box[axis] - box[axis + 2] / 2, box[axis] + box[axis + 2] / 2) for box in (a, b)
        ]
        shared = max(0.0, min(high, other_high) - max(low, other_low))
        sides.append((shared, max(high, other_high) - min(low, other_low)))
    shared, hull = sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]
    both = a[2] * a[3] + b[2] * b[3] - shared
    return shared / both - (hull - both) / hull


def focal_term(p: float, right: bool, alpha: float, gamma: float, eps: float = 0.0) -> float:
    if right:
        return alpha * (1 - p) ** gamma * -math.log(p + eps)
    return (1 - alpha) * p**gamma * -math.log(1 - p + eps)


def class_cost(logits: Numbers, label: int, kind: str, alpha: float, gamma: float) -> float:
    if kind == "softmax":
        return -softmax(logits)[label]
    p = sigmoid(logits[label])
    return focal_term(p, True, alpha, gamma, 1e-8) - focal_term(p, False, alpha, gamma, 1e-8)


def focal_loss(logits: Sequence[Numbers], classes: Sequence[int | None], alpha: float, gamma: float) -> float:
    return sum(
        focal_term(sigmoid(x), channel == label, alpha, gamma)
        for own, label in zip(logits, classes, strict=True)
        for channel, x in enumerate(own)
    )


def cross_entropy(logits: Sequence[Numbers], classes: Sequence[int | None], no_object_weight: float) -> float:
    total, weights = 0.0, 0.0
    for own, label in zip(logits, classes, strict=True):
        weight = no_object_weight if label is None else 1.0
        total -= weight * math.log(softmax(own)[-1 if label is None else label])
        weights += weight
    return total / weights


def cheapest(cost: Sequence[Numbers]) -> float:
    """Least total cost of any assignment of queries (rows) to boxes (columns), by trying them all."""
    queries, boxes = len(cost), len(cost[0]) if cost else 0
    if queries >= boxes:
        tried = (zip(chosen, range(boxes), strict=True) for chosen in itertools.permutations(range(queries), boxes))
    else:
        tried = (zip(range(queries), chosen, strict=True) for chosen in itertools.permutations(range(boxes), queries))
    return min(sum(cost[q][t] for q, t in pairs) for pairs in tried)
