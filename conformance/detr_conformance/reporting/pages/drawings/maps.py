"""Sampling points on the maps that they read, those outside shown outside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from detr_conformance.reporting.pages.drawings.svg import Drawing, box, cross, dot, element, line, picture

LARGEST = 200.0  # pixels of the longer side of a map
MOST_LINES = 40  # cells a side of which each is drawn
MARGIN = 0.42  # of the longer side, at most, for what lies outside
EDGE = 10.0
Point = tuple[float, float]


def sampling_map(
    title: str, size: tuple[int, int], points: Sequence[Point], marked: Sequence[bool], cell: int | None = None
) -> Drawing:
    """One level with the samples taken of it.

    Args:
        title: what is shown.
        size: (height, width) of the map, in cells.
        points: (x, y) as a share of width and height.
        marked: which of them the wrong number depends on.
        cell: a cell of the map that the number belongs to, counted row by row.

    A sample inside reads four cells, one on the border fewer, one outside none: dots, rings and crosses. The dashed
    line is where samples begin to read nothing.
    """
    height, width = max(size[0], 1), max(size[1], 1)
    scale = LARGEST / max(height, width)
    reach = _reach(points, marked, height, width)
    across, down = width * scale, height * scale
    left, top = reach[0] * LARGEST + EDGE, reach[1] * LARGEST + EDGE
    whole = (across + 2 * left, down + 2 * top)
    parts = [box(left, top, across, down, "d-map"), *_cells(left, top, height, width, scale)]
    if cell is not None and 0 <= cell < height * width:
        parts.append(box(left + cell % width * scale, top + cell // width * scale, scale, scale, "d-cell"))
    limit = scale / 2
    parts.append(box(left - limit, top - limit, across + 2 * limit, down + 2 * limit, "d-range"))
    met: Counter[str] = Counter()
    drawn: list[tuple[bool, Markup]] = []
    for (x, y), important in zip(points, marked, strict=True):
        kind = kind_of(x, y, size)
        met[kind] += important or not any(marked)
        if kind != "not finite":
            spot = _clamped(left + x * across, whole[0]), _clamped(top + y * down, whole[1])
            drawn.append((important, _sample(*spot, kind, important, f"({x:.4g}, {y:.4g}), {kind}")))
    parts += [sample for _, sample in sorted(drawn, key=lambda pair: pair[0])]  # those marked lie on top
    told = ", ".join(f"{count} {kind}" for kind, count in met.items() if count)
    caption = f"{'samples that count' if any(marked) else 'samples'}: {told or 'none'}"
    return Drawing(title, picture(*whole, f"{title}; {caption}", parts), caption)


def kind_of(x: float, y: float, size: tuple[int, int]) -> str:
    """How much of the map a sample reads."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return "not finite"
    column, row = x * size[1] - 0.5, y * size[0] - 0.5
    if not (-1 < column < size[1] and -1 < row < size[0]):
        return "outside"
    inside = 0 <= column <= size[1] - 1 and 0 <= row <= size[0] - 1
    return "inside" if inside else "on the border"


def _reach(points: Sequence[Point], marked: Sequence[bool], height: int, width: int) -> tuple[float, float]:
    """How much is shown beside the map, as a share of its longer side: at least the range of samples that count."""
    longest = max(height, width)
    finite = [point for point, important in zip(points, marked, strict=True) if important and _finite(point)]
    beyond_x = max((max(-x, x - 1) for x, _ in finite), default=0.0) * width / longest
    beyond_y = max((max(-y, y - 1) for _, y in finite), default=0.0) * height / longest
    least = min(1 / longest, MARGIN)
    return tuple(min(max(beyond + 0.03, least), MARGIN) for beyond in (beyond_x, beyond_y))  # type: ignore[return-value]


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _clamped(value: float, most: float) -> float:
    return min(max(value, EDGE / 2), most - EDGE / 2)


def _cells(left: float, top: float, height: int, width: int, scale: float) -> list[Markup]:
    if max(height, width) > MOST_LINES:
        return []
    upright = [line(left + i * scale, top, left + i * scale, top + height * scale, "d-grid") for i in range(1, width)]
    level = [line(left, top + i * scale, left + width * scale, top + i * scale, "d-grid") for i in range(1, height)]
    return [*upright, *level]


def _sample(x: float, y: float, kind: str, important: bool, title: str) -> Markup:
    emphasis = "d-marked" if important else "d-faint"
    radius = 5.0 if important else 2.5
    if kind == "outside":
        return cross(x, y, radius, f"d-outside {emphasis}", title)
    return dot(x, y, radius, f"{'d-inside' if kind == 'inside' else 'd-border'} {emphasis}", title)


def legend() -> Markup:
    """What the marks mean, once for all maps of a failure."""
    marks = (
        (_sample(8, 8, "inside", True, ""), "inside"),
        (_sample(8, 8, "on the border", True, ""), "on the border: some of its cells do not exist"),
        (_sample(8, 8, "outside", True, ""), "outside: reads nothing"),
        (_sample(8, 8, "inside", False, ""), "of other queries"),
    )
    return Markup("").join(
        element(
            "span",
            element("svg", mark, class_="drawing", viewBox="0 0 16 16", width=16, height=16, aria_hidden="true") + said,
            class_="key",
        )
        for mark, said in marks
    )
