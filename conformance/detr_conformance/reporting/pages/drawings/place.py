"""What an element that was wrong belongs to: which image, query, head, level, point or cell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WHERE = re.compile(r"(?P<name>[^\[]*)\[(?P<index>\d{1,9}(?:, ?\d{1,9})*)\]")


@dataclass(frozen=True)
class Place:
    """None for what the element does not tell."""

    image: int = 0
    query: int | None = None
    head: int | None = None
    level: int | None = None
    point: int | None = None
    cell: int | None = None  # of the level


def element_of(where: str) -> tuple[str, tuple[int, ...]] | None:
    """ "grad_value, again[0, 3, 1]" as ("grad_value, again", (0, 3, 1))."""
    match = _WHERE.match(where)
    return (match["name"].strip(), tuple(int(part) for part in match["index"].split(","))) if match else None


def sampled_place(where: str, shapes: Mapping[str, Sequence[int]], levels: Sequence[tuple[int, int]]) -> Place:
    """The place of an element of deformable attention's output, or of one of its gradients.

    Args:
        where: as in "output[0, 3, 17]".
        shapes: of the case's tensors.
        levels: (height, width) of each map.
    """
    found = element_of(where)
    if found is None:
        return Place()
    name, index = found
    if name.startswith("grad_sampling_locations") and len(index) == 6:
        return Place(*index[:5])
    if name.startswith("grad_attention_weights") and len(index) == 5:
        return Place(*index)
    if name.startswith("grad_value") and len(index) == 4:
        level, cell = _level_of(index[1], levels)
        return Place(image=index[0], head=index[2], level=level, cell=cell)
    if name.startswith("output") and len(index) == 3:
        channels = max(shapes.get("value", (1,))[-1], 1)
        return Place(image=index[0], query=index[1], head=index[2] // channels)
    return Place()


def _level_of(cell: int, levels: Sequence[tuple[int, int]]) -> tuple[int | None, int | None]:
    for level, (height, width) in enumerate(levels):
        if cell < height * width:
            return level, cell
        cell -= height * width
    return None, None
