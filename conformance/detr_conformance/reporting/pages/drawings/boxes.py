"""Boxes in the unit square, what leaves it shown outside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from detr_conformance.reporting.pages.drawings.svg import Drawing, box, dot, picture

SIDE = 220.0
EDGE = 26.0
MOST_BOXES = 60
Corners = tuple[float, float, float, float]


def unit_square(title: str, groups: Mapping[str, Sequence[Corners]], marked: Mapping[str, int | None]) -> Drawing:
    """Boxes (x1, y1, x2, y2) as shares of the image; a group is drawn in a colour and a dash of its own.

    Args:
        title: what is shown.
        groups: name -> boxes.
        marked: name -> the box of it that the wrong number belongs to.
    """
    whole = SIDE + 2 * EDGE
    parts = [box(EDGE, EDGE, SIDE, SIDE, "d-map")]
    told = []
    for number, (name, boxes) in enumerate(groups.items()):
        special = marked.get(name)
        for index, corners in enumerate(boxes[:MOST_BOXES]):
            if all(map(math.isfinite, corners)):
                parts.append(_drawn(corners, number, index == special, f"{name}[{index}]", whole))
        more = f", {MOST_BOXES} drawn" if len(boxes) > MOST_BOXES else ""
        told.append(f"{name}: {len(boxes)} ({'dashed' if number % 2 else 'solid'}{more})")
    caption = "; ".join(told)
    return Drawing(title, picture(whole, whole, f"{title}; {caption}", parts), caption)


def corners_of(box: Sequence[float], form: str) -> Corners:
    """(cx, cy, w, h) or (x1, y1, x2, y2) as corners."""
    a, b, c, d = box
    return (a - c / 2, b - d / 2, a + c / 2, b + d / 2) if form == "cxcywh" else (a, b, c, d)


def _drawn(corners: Corners, group: int, special: bool, title: str, whole: float) -> Markup:
    x1, y1, x2, y2 = (min(max(EDGE + value * SIDE, 2.0), whole - 2.0) for value in corners)
    style = f"d-box d-group-{group % 4}{' d-special' if special else ''}"
    if abs(x2 - x1) < 1 and abs(y2 - y1) < 1:
        return dot(x1, y1, 3.0, f"{style} d-point", title)
    return box(min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1), style, title)
