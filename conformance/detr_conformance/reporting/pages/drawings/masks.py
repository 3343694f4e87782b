"""A mask as a grid: what is valid and what is padding, or who may not attend to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup

from detr_conformance.reporting.pages.drawings.svg import Drawing, box, line, picture

LARGEST = 200.0
MOST_CELLS = 64  # a side; of a larger mask the upper left corner is shown
MOST_LINES = 40
EDGE = 4.0


def mask_grid(title: str, mask: Sequence[Sequence[bool]], row: int | None = None) -> Drawing:
    """Rows of a mask, True where it leaves something out; `row` is the one that the wrong number belongs to."""
    height, width = len(mask), max((len(cells) for cells in mask), default=0)
    shown = [list(cells[:MOST_CELLS]) for cells in mask[:MOST_CELLS]]
    rows, columns = len(shown), max((len(cells) for cells in shown), default=0)
    scale = LARGEST / max(rows, columns, 1)
    across, down = columns * scale, rows * scale
    parts = [box(EDGE, EDGE, across, down, "d-map"), *_runs(shown, scale)]
    if max(rows, columns) <= MOST_LINES:
        parts += [line(EDGE + i * scale, EDGE, EDGE + i * scale, EDGE + down, "d-grid") for i in range(1, columns)]
        parts += [line(EDGE, EDGE + i * scale, EDGE + across, EDGE + i * scale, "d-grid") for i in range(1, rows)]
    if row is not None and 0 <= row < rows:
        parts.append(box(EDGE, EDGE + row * scale, across, scale, "d-cell"))
    padded = sum(map(sum, mask))
    caption = f"{padded} of {height * width} left out (dark)"
    if (rows, columns) != (height, width):
        caption += f"; the first {rows} x {columns} of {height} x {width} are drawn"
    return Drawing(title, picture(across + 2 * EDGE, down + 2 * EDGE, f"{title}; {caption}", parts), caption)


def _runs(shown: Sequence[Sequence[bool]], scale: float) -> Iterator[Markup]:
    """One rectangle for neighbours in a row."""
    for number, cells in enumerate(shown):
        start = 0
        for padded, group in groupby(cells):
            length = len(list(group))
            if padded:
                yield box(EDGE + start * scale, EDGE + number * scale, length * scale, scale, "d-padded")
            start += length
