"""The steps from memory to queries with Python's numbers, one cell at a time; fractions where they can be exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

LOW, HIGH = Fraction(1, 100), Fraction(99, 100)
Mask = Sequence[Sequence[bool]]


def ratio(mask: Mask) -> tuple[Fraction, Fraction]:
    """(w, h) of one level."""
    height, width = len(mask), len(mask[0])
    columns = sum(1 for column in range(width) if not mask[0][column])
    rows = sum(1 for row in range(height) if not mask[row][0])
    return Fraction(columns, width), Fraction(rows, height)


def proposal(mask: Mask, row: int, column: int, level: int) -> list[float] | None:
    """The logits of a cell's box, or None if it is invalid."""
    if mask[row][column]:
        return None
    height, width = len(mask), len(mask[0])
    w, h = ratio(mask)
    if not w or not h:
        return None
    side = Fraction(2**level, 20)
    box = [Fraction(2 * column + 1, 2) / (w * width), Fraction(2 * row + 1, 2) / (h * height), side, side]
    if not all(LOW < number < HIGH for number in box):
        return None
    return [math.log(number / (1 - number)) for number in box]


def ranked(logits: Sequence[Sequence[float]], first: bool) -> list[int]:
    """Cells by falling score, equal ones in their order."""
    scores = [cell[0] if first else max(cell) for cell in logits]
    return sorted(range(len(scores)), key=lambda cell: -scores[cell])


def refined(delta: Sequence[float], reference: Sequence[float], eps: float) -> list[float]:
    """The corrected box."""
    box = []
    for axis, correction in enumerate(delta):
        logit = 0.0
        if axis < len(reference):
            x = min(max(reference[axis], 0.0), 1.0)
            logit = math.log(max(x, eps) / max(1 - x, eps))
        box.append(1 / (1 + math.exp(-(correction + logit))))
    return box
