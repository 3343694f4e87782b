"""Cases of Hungarian matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import SuiteError
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.topics.losses.checks.matching import costs, dearer
from detr_reference.losses.criterion import CLASS_COST_OF

COUNTS = (4, 0, 6, 1, 5)  # boxes of the images of a batch; the second has none
QUERIES, CLASSES = 8, 5
TELLING, ATTEMPTS = 0.01, 300
UNIT_COSTS = {"cost_class": 1.0, "cost_bbox": 5.0, "cost_giou": 2.0}


def class_costs(subject: Subject) -> tuple[str, ...]:
    """The class costs that a target has; one of a fixed class loss has the one that belongs to it."""
    said = subject.variant("class_loss")
    return ("focal", "softmax") if said == "any" else (CLASS_COST_OF[said],)


def _need(subject: Subject, class_cost: str) -> None:
    if class_cost not in class_costs(subject):
        raise NotProvided(f"the class cost is always {class_costs(subject)[0]}")


def fixed_giou_eps(subject: Subject) -> dict[str, float]:
    """The setting of a target with an epsilon in its GIoU, by the variant `giou_eps`."""
    said = subject.variant("giou_eps")
    return {} if said == "0" else {"giou_eps": float(said)}


def matching_case(
    subject: Subject,
    predictions: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor, Sequence[int]],
    note: str,
    **settings: Any,
) -> Case:
    """A call with (logits, boxes), (labels, boxes, counts) and the target's first class cost unless one is given."""
    logits, boxes = predictions
    labels, target_boxes, counts = targets
    tensors = {
        "pred_logits": logits,
        "pred_boxes": boxes,
        "target_labels": labels,
        "target_boxes": target_boxes,
        "target_counts": torch.tensor(counts, dtype=torch.int64),
    }
    chosen = {"class_cost": class_costs(subject)[0], **UNIT_COSTS, **fixed_giou_eps(subject), **settings}
    return block_case(subject, tensors, settings=chosen, note=note)


# -- numbers --------------------------------------------------------------------------------------------------


def boxes_of(fill: Filler, *shape: int) -> Tensor:
    """cxcywh, wider than high, all within the image."""
    low = torch.tensor((0.3, 0.25, 0.15, 0.08), dtype=torch.float64)
    high = torch.tensor((0.7, 0.75, 0.5, 0.3), dtype=torch.float64)
    return low + (high - low) * fill.uniform(0.0, 1.0, *shape, 4)


def labels_of(fill: Filler, number: int, classes: int) -> Tensor:
    return fill.integers(0, classes - 1, number).long()


def anything(
    subject: Subject,
    note: str,
    counts: Sequence[int] = COUNTS,
    queries: int = QUERIES,
    *,
    logit: float = 2.0,
    **settings: Any,
) -> Case:
    """Random predictions and targets. A softmax has one channel more, and no box is of that class."""
    fill = Filler(subject.dtype, subject.settings.seed, "matching", note, counts, queries)
    class_cost = settings.get("class_cost", class_costs(subject)[0])
    channels = CLASSES + (class_cost == "softmax")
    logits = fill.normal(len(counts), queries, channels) * logit
    boxes = boxes_of(fill, len(counts), queries)
    targets = labels_of(fill, sum(counts), CLASSES), boxes_of(fill, sum(counts)), counts
    return matching_case(subject, (logits, boxes), targets, note, **settings)


def ordinary(subject: Subject) -> Iterator[Case]:
    """Complete calls, with each class cost of the target."""
    for class_cost in class_costs(subject):
        for turn, layout in enumerate(("contiguous", "transposed", "sliced")):
            yield anything(subject, f"{class_cost} {turn}", class_cost=class_cost).laid_out(layout)


def plain(subject: Subject) -> Iterator[Case]:
    """The same, once for each class cost."""
    for class_cost in class_costs(subject):
        yield anything(subject, f"plain {class_cost}", class_cost=class_cost)


def representative_hungarian_matching(subject: Subject) -> list[Case]:
    return list(ordinary(subject))


# -- one cost alone -------------------------------------------------------------------------------------------


def alone(subject: Subject, cost: str, turns: int = 3, **settings: Any) -> Iterator[Case]:
    """Only one of the three costs counts."""
    weights: dict[str, Any] = dict.fromkeys(UNIT_COSTS, 0.0) | {cost: 1.0}
    for turn in range(turns):
        yield anything(subject, f"{cost} alone {turn}", **weights, **settings)


def focal_alone(subject: Subject) -> Iterator[Case]:
    _need(subject, "focal")
    yield from alone(subject, "cost_class", class_cost="focal")


def focal_with_other_settings(subject: Subject) -> Iterator[Case]:
    """An alpha and a gamma that matter: neither could be the usual one, exchanged or left out."""
    _need(subject, "focal")
    for changes in ({"alpha": 0.25}, {"alpha": 0.4}, {"gamma": 2.0}, {"gamma": 0.0}, {"alpha": 0.25, "gamma": 2.0}):

        def otherwise(case: Case, changes: dict[str, float] = changes) -> list[Tensor]:
            texts = {name: str(value) for name, value in changes.items()}
            return costs(replace(case, options=case.options | texts))

        yield _telling(subject, f"not {changes}", otherwise, class_cost="focal", alpha=0.6, gamma=3.0)


def softmax_alone(subject: Subject) -> Iterator[Case]:
    """Probabilities of which the logarithms would be matched otherwise, and others."""
    _need(subject, "softmax")
    yield from alone(subject, "cost_class", class_cost="softmax")

    def logarithms(case: Case) -> list[Tensor]:
        return [-(-cost).log() for cost in costs(case)]

    yield _telling(subject, "not logarithms", logarithms, class_cost="softmax")


def _telling(subject: Subject, note: str, otherwise: Callable[[Case], list[Tensor]], **settings: Any) -> Case:
    """A case of the class cost alone, in which the cheapest assignment by other costs would be a dear one."""
    weights: dict[str, Any] = {"cost_class": 1.0, "cost_bbox": 0.0, "cost_giou": 0.0}
    for attempt in range(ATTEMPTS):
        case = anything(subject, f"{note}, {attempt}", **weights, **settings)
        if dearer(case, otherwise(case)) > TELLING:
            return case
    raise SuiteError(f"none of {ATTEMPTS} draws tells {note}")


def class_alone(subject: Subject) -> Iterator[Case]:
    for class_cost in class_costs(subject):
        yield from alone(subject, "cost_class", 2, class_cost=class_cost)


def l1_alone(subject: Subject) -> Iterator[Case]:
    yield from alone(subject, "cost_bbox", 4)


def giou_alone(subject: Subject) -> Iterator[Case]:
    yield from alone(subject, "cost_giou", 4)


def weighted(subject: Subject) -> Iterator[Case]:
    """Each of the three costs in turn weighs most."""
    for turn, weights in enumerate(((6.0, 1.0, 2.0), (1.0, 8.0, 0.5), (0.5, 0.5, 7.0), (2.0, 5.0, 2.0))):
        costs: dict[str, Any] = dict(zip(UNIT_COSTS, weights, strict=True))
        yield anything(subject, f"weights {turn}", **costs)


def close_calls(subject: Subject) -> Iterator[Case]:
    """All predictions alike and all boxes alike: assignments differ by less than half precision can tell."""
    for class_cost in class_costs(subject):
        for turn in range(3):
            case = anything(subject, f"close calls {class_cost} {turn}", (6, 5), 9, class_cost=class_cost)
            yield case.having(
                pred_logits=drawn_together(case["pred_logits"], 0.06),
                pred_boxes=drawn_together(case["pred_boxes"], 0.06),
                target_boxes=drawn_together(case["target_boxes"], 0.06),
            )


def drawn_together(numbers: Tensor, share: float) -> Tensor:
    """Towards those of the first query or box, so that this share of the difference is left."""
    middle = numbers.double().flatten(0, -2)[:1]
    return (middle + share * (numbers.double() - middle)).to(numbers.dtype)


# -- special batches ------------------------------------------------------------------------------------------


def few_queries(subject: Subject) -> Iterator[Case]:
    """More boxes than queries, as many, fewer, none."""
    yield anything(subject, "more boxes than queries", (7, 3, 0, 5), 3)
    yield anything(subject, "one query", (4, 1), 1)


def without_boxes(subject: Subject) -> Iterator[Case]:
    yield anything(subject, "first and last image empty", (0, 3, 0, 2, 0), 5)
    yield anything(subject, "no box at all", (0, 0), 4)
    yield anything(subject, "one image, no box", (0,), 3)


def identical(subject: Subject) -> Iterator[Case]:
    """All queries predict the same; then all boxes are the same."""
    case = anything(subject, "identical predictions", (4, 2), 6)
    logits, boxes = case["pred_logits"], case["pred_boxes"]
    yield case.having(pred_logits=logits[:, :1].expand_as(logits), pred_boxes=boxes[:, :1].expand_as(boxes))
    case = anything(subject, "identical boxes", (4, 3), 6)
    labels, targets = case["target_labels"], case["target_boxes"]
    yield case.having(target_labels=labels[:1].expand_as(labels), target_boxes=targets[:1].expand_as(targets))


def without_area(subject: Subject) -> Iterator[Case]:
    """Points for boxes: a prediction and a target at the same place among them."""
    case = anything(subject, "boxes without area", (4, 3), 6)
    boxes, targets = case["pred_boxes"].clone(), case["target_boxes"].clone()
    boxes[0, 2, 2:] = 0
    boxes[1, 1, 3] = 0
    targets[0, 2:] = 0
    targets[1] = boxes[0, 2]
    yield case.having(pred_boxes=boxes, target_boxes=targets)


def saturated(subject: Subject) -> Iterator[Case]:
    """Probabilities of 0 and 1 up to rounding; boxes decide where the class cost has reached its end."""
    for class_cost in class_costs(subject):
        for turn in range(3):
            yield anything(subject, f"saturated {class_cost} {turn}", (5, 6, 4), logit=40.0, class_cost=class_cost)
    if "softmax" in class_costs(subject):
        case = anything(subject, "large logits", (5, 6, 4), class_cost="softmax")
        yield case.having(pred_logits=case["pred_logits"] + 128)


def crowds(subject: Subject) -> Iterator[Case]:
    """More queries than a hundred, and more boxes than COCO's detections."""
    yield anything(subject, "a crowd", (110, 3), 330)


def not_finite(subject: Subject) -> Iterator[Case]:
    """One number of image 2, query 5 is broken: of the class of a box, of a class that no box has, of a box."""
    case = anything(subject, "not finite", (3, 2, 2, 4), 7)
    own, classes = case["target_labels"][5:7].tolist(), range(CLASSES)
    other = next(label for label in classes if label not in own)
    for value in (torch.nan, torch.inf, -torch.inf):
        for place in (own[0], other):
            logits = case["pred_logits"].clone()
            logits[2, 5, place] = value
            yield case.having(pred_logits=logits)
        boxes = case["pred_boxes"].clone()
        boxes[2, 5, 1] = value
        yield case.having(pred_boxes=boxes)


def ill_fitting(subject: Subject) -> Iterator[Case]:
    """Targets that do not fit; the note says what is wrong with them."""
    case = anything(subject, "ill fitting", (3, 2), 6)
    boxes = case["target_boxes"]
    for counts, wrong in (
        ([3, 1], "the counts add up to fewer than the boxes"),
        ([3, 3], "the counts add up to more than the boxes"),
        ([3, 1, 1], "there are more counts than images"),
        ([3, 2, 0], "there are more counts than images, the last of them 0"),
        ([5], "there are fewer counts than images"),
        ([6, -1], "a count is negative"),
    ):
        yield replace(case.having(target_counts=torch.tensor(counts)), note=wrong)
    yield replace(case.having(target_boxes=boxes[:4]), note="there are fewer boxes than labels")


def foreign_labels(subject: Subject) -> Iterator[Case]:
    """Labels below and beyond the classes; the note says which."""
    case = anything(subject, "foreign labels", (3, 2), 6)
    for label in (-1, case["pred_logits"].shape[-1]):
        labels = case["target_labels"].clone()
        labels[3] = label
        yield replace(case.having(target_labels=labels), note=f"a label is {label}")


# -- drawn ----------------------------------------------------------------------------------------------------


@composite
def _drawn(draw: st.DrawFn, subject: Subject) -> Case:
    counts = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
    weight = st.sampled_from((0.5, 1.0, 2.0, 5.0))
    return anything(
        subject,
        f"drawn {draw(SEEDS)}",
        counts,
        draw(st.integers(1, 9)),
        class_cost=draw(st.sampled_from(class_costs(subject))),
        cost_class=draw(weight),
        cost_bbox=draw(weight),
        cost_giou=draw(weight),
    ).laid_out(draw(ANY_LAYOUT))


def drawn(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn(subject)
