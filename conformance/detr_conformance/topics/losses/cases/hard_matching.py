"""Matching that takes an exact solver, boxes of every kind, and large calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import SuiteError
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.losses.cases.matching import (
    ATTEMPTS,
    TELLING,
    UNIT_COSTS,
    anything,
    boxes_of,
    class_costs,
    drawn_together,
    labels_of,
    matching_case,
)
from detr_conformance.topics.losses.checks.matching import cheapest, costs, dearer

RINGS = ((20,), (2, 3, 5, 8), (4, 6, 9), (13, 7))  # boxes of each ring, image by image
SURE, NEARLY, UNSURE = 3.0, 2.98, -9.0
Otherwise = Callable[[Case], Case]


# -- long exchanges -------------------------------------------------------------------------------------------


def rings(subject: Subject) -> Iterator[Case]:
    """Query j is the best for box j and nearly as good for box j + 1 of its ring; the last box has no best one.

    Greedily the last box of a ring gets a query that knows nothing of it. Passing every query on to the next box helps,
    and any exchange of fewer is worse.
    """
    queries, classes = 60, 24
    for class_cost in class_costs(subject):
        fill = Filler(subject.dtype, subject.settings.seed, "rings", class_cost)
        counts = [sum(rings) for rings in RINGS]
        logits = torch.full((len(RINGS), queries, classes + (class_cost == "softmax")), UNSURE, dtype=torch.float64)
        logits += 0.001 * fill.normal(*logits.shape)
        labels = []
        for image, (sizes, count) in enumerate(zip(RINGS, counts, strict=True)):
            own = torch.randperm(classes, generator=fill.generator)[:count]
            place = torch.randperm(queries, generator=fill.generator)[:count]
            labels.append(own[torch.randperm(count, generator=fill.generator)])
            start = 0
            for size in sizes:
                ring = list(range(start, start + size))
                for box, following in zip(ring, ring[1:] + ring[:1], strict=True):
                    logits[image, place[box], own[following]] = NEARLY
                    if box != ring[-1]:
                        logits[image, place[box], own[box]] = SURE
                start += size
        boxes, targets = boxes_of(fill, len(RINGS), queries), boxes_of(fill, sum(counts))
        weights: dict[str, Any] = dict.fromkeys(UNIT_COSTS, 0.0) | {"cost_class": 1.0, "class_cost": class_cost}
        yield matching_case(
            subject, (logits, boxes), (torch.cat(labels), targets, counts), f"rings, {class_cost}", **weights
        )


def exchanges(subject: Subject) -> Iterator[Case]:
    """60 queries and 20 boxes, drawn until greedy assignment with exchanges of two or three boxes ends elsewhere."""
    for class_cost in class_costs(subject):
        for attempt in range(ATTEMPTS):
            case = anything(subject, f"exchanges {class_cost} {attempt}", (20,), 60, class_cost=class_cost)
            alike = _alike(case)
            if gap_of_repairs(case) > TELLING and gap_of_repairs(alike) > TELLING / 20:
                yield case
                yield alike
                break
        else:
            raise SuiteError(f"none of {ATTEMPTS} draws of {class_cost} costs needs more than short exchanges")


def _alike(case: Case) -> Case:
    """Predictions and boxes that hardly differ: what a solver may be off by counts for more."""
    names = ("pred_logits", "pred_boxes", "target_boxes")
    alike = case.having(**{name: drawn_together(case[name], 0.01) for name in names})
    return replace(alike, note=f"{case.note}, alike")


def gap_of_repairs(case: Case) -> float:
    """How much dearer, in the image where it is least so, repaired greedy pairs are than the cheapest."""
    return min(float(cost[repaired(cost.numpy())].sum()) - cheapest(cost) for cost in costs(case))


def repaired(cost: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Greedy pairs, improved as long as a free query or an exchange of two or three boxes is cheaper."""
    left, taken = cost.copy(), [-1] * cost.shape[1]
    for _ in taken:
        query, box = np.unravel_index(left.argmin(), left.shape)
        taken[int(box)] = int(query)
        left[query], left[:, box] = np.inf, np.inf
    boxes = list(range(len(taken)))
    while True:
        changed = _better(cost, taken, boxes)
        if changed is None:
            return taken, boxes
        taken = changed


def _better(cost: NDArray[np.float64], taken: list[int], boxes: list[int]) -> list[int] | None:
    free = [query for query in range(len(cost)) if query not in taken]
    for box in boxes:
        best = min(free, key=lambda query: float(cost[query, box]))
        if cost[best, box] < cost[taken[box], box] - 1e-9:
            return [best if other == box else query for other, query in enumerate(taken)]
    for number in (2, 3):
        for some in combinations(boxes, number):
            own = [taken[box] for box in some]
            now = cost[own, some].sum()
            for turned in permutations(own):
                if cost[list(turned), some].sum() < now - 1e-9:
                    moved = dict(zip(some, turned, strict=True))
                    return [moved.get(box, query) for box, query in enumerate(taken)]
    return None


# -- boxes of every kind --------------------------------------------------------------------------------------


def telling_boxes(subject: Subject) -> Iterator[Case]:
    """Boxes that matter as they are: whoever changed them first would be matched otherwise, and more dearly."""
    weights: dict[str, dict[str, Any]] = {
        "L1": {"cost_class": 0.0, "cost_giou": 0.0},
        "GIoU": {"cost_class": 0.0, "cost_bbox": 0.0},
        "all costs": {"cost_class": 0.2},
    }
    for name, own in weights.items():
        yield _drawn_until_telling(subject, f"across the border, {name}", across, inside, **own)
        yield _drawn_until_telling(subject, f"of every size, {name}", of_every_size, not_small, **own)
        yield _drawn_until_telling(subject, f"tiny, {name}", tiny, not_small, telling=1e-3, **own)
    own = weights["GIoU"]
    yield _drawn_until_telling(subject, "apart, GIoU", apart, overlapping_at_least, **own)


def _drawn_until_telling(
    subject: Subject, note: str, draw: Callable[..., Tensor], otherwise: Otherwise, *, telling: float = TELLING,
    **settings: Any,
) -> Case:  # fmt: skip
    for attempt in range(ATTEMPTS):
        fill = Filler(subject.dtype, subject.settings.seed, "boxes", note, attempt)
        case = anything(subject, f"boxes {note}", (7, 0, 5), 9, **settings)
        case = case.having(
            pred_boxes=draw(fill, 3, 9).to(case["pred_boxes"].dtype),
            target_boxes=draw(fill, 12).to(case["target_boxes"].dtype),
        )
        if dearer(case, costs(otherwise(case))) > telling:
            return case
    raise SuiteError(f"none of {ATTEMPTS} draws tells boxes {note}")


def across(fill: Filler, *shape: int) -> Tensor:
    """Centres next to the border or beyond it, sides of a third of the image."""
    side = torch.where(fill.chance(0.5, *shape, 1), 0.02, 0.98)
    centre = torch.where(fill.chance(0.5, *shape, 2), side, 0.5) + fill.uniform(-0.2, 0.2, *shape, 2)
    return torch.cat((centre, fill.uniform(0.2, 0.5, *shape, 2)), -1)


def tiny(fill: Filler, *shape: int) -> Tensor:
    """Sides below a hundredth, close together."""
    return torch.cat((fill.uniform(0.49, 0.51, *shape, 2), fill.uniform(0.001, 0.01, *shape, 2)), -1)


def of_every_size(fill: Filler, *shape: int) -> Tensor:
    """Sides from a thousandth to more than the image."""
    return torch.cat((fill.uniform(0.3, 0.7, *shape, 2), 10 ** fill.uniform(-3, 0.1, *shape, 2)), -1)


def apart(fill: Filler, *shape: int) -> Tensor:
    return torch.cat((fill.uniform(0.05, 0.95, *shape, 2), fill.uniform(0.02, 0.1, *shape, 2)), -1)


def _of_boxes(case: Case, change: Callable[[Tensor], Tensor]) -> Case:
    return case.having(pred_boxes=change(case["pred_boxes"]), target_boxes=change(case["target_boxes"]))


def inside(case: Case) -> Case:
    """What of the boxes lies within the image."""

    def cut(boxes: Tensor) -> Tensor:
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        low, high = (centre - half).clamp(0, 1), (centre + half).clamp(0, 1)
        return torch.cat(((low + high) / 2, high - low), -1)

    return _of_boxes(case, cut)


def not_small(case: Case) -> Case:
    """No side shorter than a hundredth of the image."""
    return _of_boxes(case, lambda boxes: torch.cat((boxes[..., :2], boxes[..., 2:].clamp(min=0.01)), -1))


def overlapping_at_least(case: Case) -> Case:
    """Without the hull all pairs that are apart cost the same: any order of the boxes is as good."""
    return _of_boxes(case, lambda boxes: torch.cat((boxes[..., :2].roll(1, -2), boxes[..., 2:]), -1))


# -- large calls ----------------------------------------------------------------------------------------------


def published_hungarian_matching(subject: Subject) -> list[Case]:
    """900 queries, a hundred boxes and more, 91 classes."""
    return [_sized(subject, (101, 37), 900, 91)]


def large_matchings(subject: Subject) -> Iterator[Case]:
    """Many queries, boxes, images, and labels beyond 8 and beyond 15 bits."""
    for counts, queries, classes in (
        ((300,), 307, 17),
        ((257, 140), 131, 5),
        ((2, 0, 1, 3, 1) * 14, 4, 5),
        ((5, 3), 1031, 5),
        ((40, 20), 65, 365),
        ((6, 8), 9, 1203),
    ):
        yield _sized(subject, counts, queries, classes)
    yield _sized(subject, (6,), 7, 33_000, cost_bbox=0.0, cost_giou=0.0, lowest=32_768)


def _sized(
    subject: Subject, counts: Sequence[int], queries: int, classes: int, *, lowest: int = 0, **settings: Any
) -> Case:
    """Random predictions and targets; the last classes have boxes too."""
    fill = Filler(subject.dtype, subject.settings.seed, "sized", tuple(counts), queries, classes)
    channels = classes + (class_costs(subject)[0] == "softmax")
    labels = labels_of(fill, sum(counts), classes - lowest) + lowest
    labels[::2] = classes - 1 - labels_of(fill, len(labels[::2]), max(1, (classes - lowest) // 4))
    logits = 2 * fill.normal(len(counts), queries, channels)
    boxes, targets = boxes_of(fill, len(counts), queries), boxes_of(fill, sum(counts))
    note = f"{queries} queries, up to {max(counts)} boxes, {classes} classes"
    return matching_case(subject, (logits, boxes), (labels, targets, counts), note, **settings)
