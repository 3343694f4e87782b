"""The drawings of one failure: of the tensors that its case has, and of the number that was wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from detr_conformance.reporting.pages.drawings.boxes import corners_of, unit_square
from detr_conformance.reporting.pages.drawings.maps import sampling_map
from detr_conformance.reporting.pages.drawings.masks import mask_grid
from detr_conformance.reporting.pages.drawings.place import Place, element_of, sampled_place
from detr_conformance.reporting.pages.drawings.svg import Drawing

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]
MOST_DRAWINGS = 6
MOST_LEVELS = 4
MOST_FAINT = 250
MOST_MARKED = 400
CORNERS = ("boxes1", "boxes2")  # (x1, y1, x2, y2); all other boxes are (cx, cy, w, h)
SHOWN_AS_BOXES = ("boxes", "reference", "proposals")


def drawings_of(tensors: Tensors, where: str) -> list[Drawing]:
    """What can be drawn of a case; nothing of a case that has neither samples nor masks nor boxes."""
    levels = _levels(tensors)
    every = (_samples(tensors, where, levels), _masks(tensors, where, levels), _references(tensors, where, levels))
    found = [drawing for kind in every for drawing in kind]
    return [*found, *_boxes(tensors, where)][:MOST_DRAWINGS]


def _levels(tensors: Tensors) -> list[tuple[int, int]]:
    shapes = tensors.get("spatial_shapes")
    if shapes is None or shapes.ndim != 2 or shapes.shape[1] != 2 or shapes.is_floating_point():
        return []
    levels = [(height, width) for height, width in shapes.tolist()]
    return levels if all(0 <= height < 1 << 20 and 0 <= width < 1 << 20 for height, width in levels) else []


def _samples(tensors: Tensors, where: str, levels: Sequence[tuple[int, int]]) -> Iterator[Drawing]:
    """The maps of the levels concerned, with the samples of the query and head concerned marked."""
    locations = tensors.get("sampling_locations")
    if locations is None or locations.ndim != 6 or locations.shape[3] != len(levels) or locations.shape[5] != 2:
        return
    place = sampled_place(where, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, levels)
    if not (_within(place.image, locations.shape[0]) and _within(place.head, locations.shape[2])):
        place = Place()
    if not locations.shape[0] or not locations.shape[2]:
        return
    chosen = range(len(levels)) if place.level is None else [place.level]
    for level in islice((level for level in chosen if level < len(levels)), MOST_LEVELS):
        height, width = levels[level]
        points, marked = _points(locations[place.image, :, place.head or 0, level], place, (height, width))
        title = f"level {level} ({height} x {width}): {_named(place)}"
        yield sampling_map(title, (height, width), points, marked, place.cell)


def _points(locations: Tensor, place: Place, size: tuple[int, int]) -> tuple[list[tuple[float, float]], list[bool]]:
    """The samples (query, point, 2) of one level: those that count, and some of the others."""
    queries = locations.double().tolist()
    points: list[tuple[float, float]] = []
    marked: list[bool] = []
    left = {True: MOST_MARKED, False: MOST_FAINT}
    for query, samples in enumerate(queries):
        for number, (x, y) in enumerate(samples):
            important = _counts(place, query, number, (x, y), size)
            left[important] -= 1
            if left[important] >= 0:
                points.append((x, y))
                marked.append(important)
    return points, marked


def _counts(place: Place, query: int, number: int, at: tuple[float, float], size: tuple[int, int]) -> bool:
    if place.cell is not None:
        row, column = divmod(place.cell, max(size[1], 1))
        return abs(at[0] * size[1] - 0.5 - column) < 1 and abs(at[1] * size[0] - 0.5 - row) < 1
    return query == place.query and place.point in (None, number)


def _named(place: Place) -> str:
    indices = {"image": place.image, "query": place.query, "head": place.head or 0, "point": place.point}
    return ", ".join(f"{name} {index}" for name, index in indices.items() if index is not None)


def _within(index: int | None, size: int) -> bool:
    return index is None or index < size


def _masks(tensors: Tensors, where: str, levels: Sequence[tuple[int, int]]) -> Iterator[Drawing]:
    """Every mask of the case: of the image that the element belongs to, level by level where the cells are flat."""
    found = element_of(where)
    image = found[1][0] if found else 0
    for name, mask in tensors.items():
        if "mask" not in name or not 1 < mask.ndim < 5 or not mask.numel() or mask.dtype.is_complex:
            continue
        left_out = _left_out(mask)
        if name.endswith("padding_mask") and mask.ndim == 2 and levels:
            yield from _by_level(name, left_out[image if image < len(left_out) else 0].tolist(), levels)
        else:
            while left_out.ndim > 2:
                left_out = left_out[image if image < len(left_out) and left_out.ndim == 3 else 0]
            yield mask_grid(name, left_out.tolist())


def _left_out(mask: Tensor) -> Tensor:
    """True where a mask leaves something out; an additive one does where it is very negative."""
    return mask < -1e3 if mask.is_floating_point() else mask.bool()


def _by_level(name: str, cells: Sequence[bool], levels: Sequence[tuple[int, int]]) -> Iterator[Drawing]:
    start = 0
    for level, (height, width) in enumerate(levels[:MOST_LEVELS]):
        own = cells[start : start + height * width]
        start += height * width
        if own and len(own) == height * width:
            rows = [own[row * width : (row + 1) * width] for row in range(height)]
            yield mask_grid(f"{name}, level {level} ({height} x {width})", rows)


def _references(tensors: Tensors, where: str, levels: Sequence[tuple[int, int]]) -> Iterator[Drawing]:
    """Reference points of a module, where there are no sampling locations to draw."""
    points = tensors.get("reference_points")
    if points is None or points.ndim != 4 or points.shape[3] != 2 or points.shape[2] != len(levels):
        return
    found = element_of(where)
    image, query = (*found[1], -1)[:2] if found else (0, -1)
    if not points.numel() or image >= len(points):
        return
    for level, size in enumerate(levels[:MOST_LEVELS]):
        own = [(x, y) for x, y in points[image, :MOST_FAINT, level].double().tolist()]
        title = f"reference points, level {level} ({size[0]} x {size[1]})"
        yield sampling_map(title, size, own, [number == query for number in range(len(own))])


def _boxes(tensors: Tensors, where: str) -> Iterator[Drawing]:
    """All boxes of the case in one square, those of several images apart from each other only by the image chosen."""
    found = element_of(where)
    index = found[1] if found else ()
    groups: dict[str, list[Any]] = {}
    marked: dict[str, int | None] = {}
    for name, tensor in tensors.items():
        of_boxes = any(word in name for word in SHOWN_AS_BOXES) and not name.startswith(("grad_", "parameter:"))
        if not of_boxes or tensor.ndim < 2 or tensor.shape[-1] != 4 or not tensor.is_floating_point():
            continue
        own = tensor
        while own.ndim > 2 and len(own):
            own = own[index[0] if own.ndim == 3 and index and index[0] < len(own) else -1]
        if own.ndim == 2 and own.numel():
            form = "xyxy" if name in CORNERS else "cxcywh"
            groups[name] = [corners_of(each, form) for each in own.double().tolist()]
            marked[name] = _box_meant(name, tensor.ndim, found)
    if groups:
        yield unit_square("boxes in the image", groups, marked)


def _box_meant(name: str, axes: int, element: tuple[str, tuple[int, ...]] | None) -> int | None:
    """Which box of a tensor the element belongs to: of its own gradient, of a pair, of a query."""
    if element is None:
        return None
    where, index = element
    if where.startswith("grad_"):
        return index[-2] if where.startswith(f"grad_{name}") and len(index) == axes else None
    if name in CORNERS:
        own = CORNERS.index(name)
        return index[own] if len(index) > own else None
    return index[1] if axes == 3 and len(index) > 1 else None
