"""Pairs of boxes of every kind: apart, across the border, tiny, thin, larger than the image, nearly right.

The assignment is clear by the classes, of which every box of an image has its own: whatever the boxes are, they do not
decide it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.losses.cases.matching import boxes_of, fixed_giou_eps
from detr_conformance.topics.losses.cases.planted_losses import CLEAR, class_losses, clearest

Pair = tuple[Tensor, Tensor]  # a box and what is predicted for it, cxcywh
SIDES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
SURE = 3.0
# What counts is which class a query is sure of; boxes weigh little beside it.
BY_CLASS: dict[str, Any] = {"cost_class": 40.0, "cost_bbox": 0.5, "cost_giou": 0.5}


def _tensor(*boxes: Sequence[float]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float64)


def apart() -> Pair:
    """Without common area: apart along x, along y and along both, near by and across the image, small and large."""
    targets = _tensor(
        (0.2, 0.3, 0.2, 0.3), (0.3, 0.2, 0.4, 0.1), (0.15, 0.2, 0.1, 0.15), (0.9, 0.8, 0.05, 0.1),
        (0.5, 0.5, 0.011, 0.013), (0.25, 0.3, 0.45, 0.4), (0.62, 0.41, 0.02, 0.3),
    )  # fmt: skip
    predicted = _tensor(
        (0.6, 0.35, 0.25, 0.2), (0.35, 0.7, 0.3, 0.2), (0.85, 0.9, 0.12, 0.1), (0.05, 0.07, 0.06, 0.05),
        (0.53, 0.52, 0.014, 0.012), (0.77, 0.75, 0.41, 0.37), (0.645, 0.42, 0.025, 0.28),
    )  # fmt: skip
    return targets, predicted


def across() -> Pair:
    """Predictions across each border, across two, wholly outside, and larger than the image; and such boxes."""
    targets = _tensor(
        (0.1, 0.4, 0.2, 0.3), (0.9, 0.6, 0.19, 0.2), (0.45, 0.08, 0.3, 0.16), (0.55, 0.93, 0.25, 0.13),
        (0.06, 0.92, 0.11, 0.15), (0.97, 0.03, 0.05, 0.06), (0.5, 0.5, 0.98, 0.97), (0.04, 0.5, 0.3, 0.4),
    )  # fmt: skip
    predicted = _tensor(
        (0.05, 0.45, 0.25, 0.25), (1.02, 0.55, 0.3, 0.22), (0.42, 0.01, 0.32, 0.2), (0.58, 1.01, 0.22, 0.3),
        (-0.02, 1.04, 0.2, 0.3), (1.2, -0.15, 0.15, 0.2), (0.52, 0.47, 1.3, 1.2), (-0.03, 0.53, 0.36, 0.43),
    )  # fmt: skip
    return targets, predicted


def of_all_sizes(fill: Filler) -> Pair:
    """Overlapping pairs of any side, each predicted by a share of its side off; the first beside the border."""
    long = torch.tensor(SIDES, dtype=torch.float64)
    size = torch.stack((long, long * fill.uniform(0.5, 0.8, len(SIDES))), -1)
    centre = fill.uniform(0.2, 0.8, len(SIDES), 2)
    off = torch.where(fill.chance(0.5, len(SIDES), 4), 1, -1) * fill.uniform(0.1, 0.25, len(SIDES), 4)
    predicted = torch.cat((centre + off[:, :2] * size, size * (1 + off[:, 2:])), -1)
    return torch.cat((centre, size), -1), predicted


def nearly_right(fill: Filler) -> Pair:
    """Predictions of well-trained detectors: off by a hundredth of a side, a thousandth, less; and thin ones."""
    size = torch.tensor(
        ((0.3, 0.2), (0.5, 0.7), (0.08, 0.05), (0.9, 0.85), (0.6, 0.004), (0.003, 0.7)), dtype=torch.float64
    )
    centre = fill.uniform(0.46, 0.52, len(size), 2)
    share = torch.tensor((0.01, 0.001, 0.02, 0.0003, 0.01, 0.1), dtype=torch.float64)[:, None]
    off = torch.where(fill.chance(0.5, len(size), 4), 1, -1) * share * fill.uniform(0.4, 1.0, len(size), 4)
    predicted = torch.cat((centre + off[:, :2] * size, size * (1 + off[:, 2:])), -1)
    return torch.cat((centre, size), -1), predicted


KINDS = ("apart", "across the border", "of all sizes", "nearly right")


def pairs_of_kind(fill: Filler, kind: str) -> Pair:
    return {
        "apart": apart,
        "across the border": across,
        "of all sizes": lambda: of_all_sizes(fill),
        "nearly right": lambda: nearly_right(fill),
    }[kind]()


def boxes_of_any_kind(subject: Subject) -> Iterator[Case]:
    """A kind a batch, so that none is lost in the losses of another; then all of them, an image each."""
    for class_loss in class_losses(subject):
        for kind in KINDS:
            yield _sure_of_classes(subject, kind, [kind], class_loss)
        yield _sure_of_classes(subject, "of every kind", KINDS, class_loss, one_by_one=True)


def _sure_of_classes(
    subject: Subject, note: str, kinds: Sequence[str], class_loss: str, one_by_one: bool = False
) -> Case:
    """Two layers of predictions, of which the last one has the pairs and the first one other boxes.

    Args:
        one_by_one: an image for each kind; otherwise one image.
    """
    fill = Filler(subject.dtype, subject.settings.seed, "any boxes", note, class_loss)
    found = [pairs_of_kind(fill, kind) for kind in kinds]
    counts = [len(targets) for targets, _ in found]
    most, background = max(counts), 5
    classes = most + 2
    channels = classes + (class_loss == "cross_entropy")
    queries, labels = most + background, []
    logits = fill.normal(2, len(counts), queries, channels) - SURE
    boxes = boxes_of(fill, 2, len(counts), queries)
    for image, (_, predicted) in enumerate(found):
        own = torch.randperm(classes - 1, generator=fill.generator)[: len(predicted)]
        chosen = torch.randperm(queries, generator=fill.generator)[: len(predicted)]
        logits[:, image, chosen, own] = SURE + fill.uniform(0.0, 1.0, 2, len(own))
        boxes[1, image, chosen] = predicted
        labels.append(own)
        # A query that is sure of what is not there: of a class that no box has.
        logits[:, image, next(q for q in range(queries) if q not in chosen.tolist()), classes - 1] = 3 * SURE
    tensors = {
        "pred_logits": logits,
        "pred_boxes": boxes,
        "target_labels": torch.cat(labels),
        "target_boxes": torch.cat([targets for targets, _ in found]),
        "target_counts": torch.tensor(counts),
    }
    settings = {"class_loss": class_loss, **BY_CLASS, **fixed_giou_eps(subject)}
    case = block_case(subject, tensors, settings=settings, note=f"boxes {note}, {class_loss}")
    require(clearest(case) > CLEAR, "an assignment that is clear by the classes")
    return case
