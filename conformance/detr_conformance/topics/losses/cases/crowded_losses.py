"""Large calls of the detection losses: an image full of boxes, and the sizes of published detectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.losses.cases.matching import boxes_of, fixed_giou_eps, labels_of
from detr_conformance.topics.losses.cases.planted_losses import ONE_LAYER, Sizes, class_losses, planted, query_of

GRID = 18  # cells of an image along each side
Predicted = tuple[Tensor, Tensor]  # logits, boxes


def grid_of_boxes(fill: Filler, count: int) -> Tensor:
    """Small boxes in cells of their own, in any order."""
    cells = torch.randperm(GRID**2, generator=fill.generator)[:count]
    places = torch.stack((cells % GRID, cells // GRID), -1).double()
    centre = (places + fill.uniform(0.4, 0.6, count, 2)) / GRID
    return torch.cat((centre, fill.uniform(0.4, 0.8, count, 2) / GRID), -1)


def crowd(subject: Subject, counts: Sequence[int], note: str, *, queries: int, classes: int, layers: int = 1,
          tokens: int = 0, groups: int = 0, **settings: Any) -> Case:  # fmt: skip
    """Images full of small boxes, each of which has a query nearby that is sure of its class.

    That the assignment is clear takes too long to ask of every run.
    """
    chosen = {"class_loss": class_losses(subject)[0], **fixed_giou_eps(subject), **settings}
    channels = classes + (chosen["class_loss"] == "cross_entropy")
    fill = Filler(subject.dtype, subject.settings.seed, "crowd", note, tuple(counts))
    targets = [grid_of_boxes(fill, count) for count in counts]
    labels = labels_of(fill, sum(counts), classes)
    sets = [_planted(fill, targets, labels, queries, channels) for _ in range(layers)]
    tensors = {
        "pred_logits": torch.stack([logits for logits, _ in sets]),
        "pred_boxes": torch.stack([boxes for _, boxes in sets]),
        "target_labels": labels,
        "target_boxes": torch.cat(targets),
        "target_counts": torch.tensor(counts),
    }
    if tokens:
        encoder = _planted(fill, targets, labels, tokens, channels)
        tensors |= dict(zip(("enc_logits", "enc_boxes"), encoder, strict=True))
    if groups:
        slots = groups * 2 * max(counts)
        tensors["dn_logits"] = fill.normal(layers, len(counts), slots, channels)
        tensors["dn_boxes"] = boxes_of(fill, layers, len(counts), slots)
    return block_case(subject, tensors, settings=chosen, note=note)


def _planted(fill: Filler, targets: list[Tensor], labels: Tensor, queries: int, channels: int) -> Predicted:
    logits, boxes = fill.normal(len(targets), queries, channels) - 1, boxes_of(fill, len(targets), queries)
    for image, (own, classes) in enumerate(zip(targets, labels.split([len(each) for each in targets]), strict=True)):
        query = torch.randperm(queries, generator=fill.generator)[: len(own)]
        logits[image, query, classes] += 5
        signs = 1 - 2 * fill.integers(0, 1, len(own), 4)
        size = own[:, 2:].repeat(1, 2)
        boxes[image, query] = own + signs * size * fill.uniform(0.05, 0.2, len(own), 4)
    return logits, boxes


def full_images(subject: Subject) -> Iterator[Case]:
    """One box twice; hundreds of boxes in an image, beside one, beside none; hardly any query left."""
    for class_loss in class_losses(subject):
        yield annotated_twice(planted(subject, f"one box twice, {class_loss}", ONE_LAYER, class_loss=class_loss))
        yield crowd(subject, (300, 0, 1), f"300 boxes, {class_loss}", queries=304, classes=7, class_loss=class_loss)
        yield crowd(subject, (131, 33), f"131 boxes, {class_loss}", queries=131, classes=300, class_loss=class_loss)


def annotated_twice(case: Case) -> Case:
    """The second box of the first image becomes its first, and its query predicts what the first one's does."""
    changed = {name: case[name].clone() for name in ("target_labels", "target_boxes", "pred_logits", "pred_boxes")}
    first, second = (query_of(box, 0, ONE_LAYER.queries) for box in (0, 1))
    for name, tensor in changed.items():
        if name.startswith("target_"):
            tensor[1] = tensor[0]
        else:
            tensor[:, 0, second] = tensor[:, 0, first]
    return case.having(**changed)


def many_of_each(subject: Subject) -> Iterator[Case]:
    """Many images, layers, queries, tokens, groups: one of them at a time beyond any table of fixed size."""
    yield planted(subject, "67 images", Sizes((1, 0, 2, 1) * 16 + (2, 0, 1), layers=1, queries=3))
    yield planted(subject, "14 layers", Sizes((1, 2), layers=14, queries=4))
    yield planted(subject, "1027 queries", Sizes((2, 3), layers=1, queries=1027))
    if subject.variant("loss_sets") == "all":
        yield planted(subject, "2051 tokens", Sizes((2, 1), layers=1, tokens=2051))
        groups = Sizes((1, 2), layers=1, groups=133)
        yield planted(subject, "133 groups", groups)
        yield planted(subject, "70 groups without negatives", replace(groups, groups=70, contrastive=False))


def published_detection_losses(subject: Subject) -> list[Case]:
    """Six layers of 900 queries and 91 classes, the encoder's and three groups of denoising beside them."""
    sets = {"tokens": 900, "groups": 3} if subject.variant("loss_sets") == "all" else {}
    return [crowd(subject, (63, 5), "of DINO", queries=900, classes=91, layers=6, **sets)]
