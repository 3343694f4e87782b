"""Mutants of the detection losses that are right for ordinary boxes and few of them (LOSS-31 to LOSS-33)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.losses import (
    Batch,
    Chosen,
    Logits,
    Losses,
    LossesByHand,
    Pairs,
    Predicted,
    Some,
)


@mutant(
    "losses-no-pull-on-boxes-apart",
    rejects="LOSS-31",
    operation="detection_losses",
    origin="generalized IoU by a kernel that returns early where nothing overlaps",
)
class NoPullApart(LossesByHand):
    """Gives boxes without common area their GIoU, and no gradient of it."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        a, b = self.matching.corners(ours), self.matching.corners(theirs)
        meet = ((torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])) > 0).all(-1)
        return super().giou(torch.where(meet[:, None], ours, ours.detach()), theirs, eps)


@mutant(
    "losses-far-pairs-clamped",
    rejects="LOSS-31",
    operation="detection_losses",
    origin="an L1 distance clipped against exploding gradients",
)
class FarPairsClamped(LossesByHand):
    """Takes no coordinate to be off by more than half the image."""

    def l1(self, ours: Some, theirs: Some) -> Tensor:
        return (ours - theirs).abs().clamp(max=0.5).sum()


@mutant(
    "losses-sides-at-least",
    rejects="LOSS-31",
    operation="detection_losses",
    origin="w.clamp(min=1e-3), against a division by zero",
)
class SidesAtLeast(LossesByHand):
    """Takes sides below a five hundredth of the image for that long, in the GIoU."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        a, b = (torch.cat((boxes[:, :2], boxes[:, 2:].clamp(min=0.002)), -1) for boxes in (ours, theirs))
        return super().giou(a, b, eps)


@mutant(
    "losses-good-enough",
    rejects="LOSS-31",
    operation="detection_losses",
    origin="an insensitive zone, as of support vector regression",
)
class GoodEnough(LossesByHand):
    """Asks no more of coordinates that are right to a five hundredth of the image."""

    def l1(self, ours: Some, theirs: Some) -> Tensor:
        off = (ours - theirs).abs()
        return torch.where(off < 0.002, 0.0, off).sum()


@mutant(
    "losses-table-of-boxes",
    rejects="LOSS-32",
    operation="detection_losses",
    origin="targets padded to a table of 256 rows",
)
class TableOfBoxes(LossesByHand):
    """Knows the first 256 boxes of an image, and counts all of them."""

    def three(self, at: Predicted) -> Losses:
        kept = [(query[box < 256], box[box < 256]) for query, box in at.pairs]
        return super().three(replace(at, pairs=kept))


@mutant(
    "losses-each-box-once",
    rejects="LOSS-32",
    operation="detection_losses",
    origin="targets passed through torch.unique, against annotations that stand there twice",
)
class EachBoxOnce(LossesByHand):
    """Leaves out a box that is the same as an earlier one of its image, and counts it."""

    def three(self, at: Predicted) -> Losses:
        kept = []
        for own, (query, box) in zip(at.batch.boxes, at.pairs, strict=True):
            first_alike = (own[:, None] == own).all(-1).long().argmax(-1) if len(own) else box
            new = first_alike[box] == box
            kept.append((query[new], box[new]))
        return super().three(replace(at, pairs=kept))


@mutant(
    "losses-n-up-to-a-hundred",
    rejects="LOSS-32",
    operation="detection_losses",
    origin="num_boxes.clamp(1, 100), the numbers of COCO's detections",
)
class UpToAHundred(LossesByHand):
    """Counts no more than a hundred boxes."""

    def boxes(self, batch: Batch) -> float:
        return min(100.0, super().boxes(batch))


@mutant(
    "losses-last-images-of-large-batches",
    rejects="LOSS-33",
    operation="detection_losses",
    origin="a kernel with a bit of one word for each image",
)
class LastImages(LossesByHand):
    """Asks images from the sixty-fifth on for background alone."""

    def pairs(self, logits: Logits, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        none = torch.zeros(0, dtype=torch.int64)
        found = super().pairs(logits, boxes, batch, chosen)
        return [pair if image < 64 else (none, none) for image, pair in enumerate(found)]


@mutant(
    "losses-groups-of-a-table",
    rejects="LOSS-33",
    operation="detection_losses",
    origin="a table of slots for 64 groups",
)
class GroupsOfATable(LossesByHand):
    """Asks groups of denoising from the sixty-fifth on for background alone."""

    def known(self, logits: Logits, boxes: Tensor, batch: Batch, groups: int, size: int, chosen: Chosen) -> Pairs:
        return super().known(logits, boxes, batch, min(groups, 64), size, chosen)


@mutant(
    "losses-nine-layers",
    rejects="LOSS-33",
    operation="detection_losses",
    origin="names of layers by their last digit",
)
class LayersByDigit(LossesByHand):
    """Names layer 10 as layer 0."""

    def layers(self, prefix: str, number: int) -> list[tuple[str, int]]:
        last, *earlier = super().layers(prefix, number)
        return [last, *((f"{prefix}_{layer % 10}", layer) for _, layer in earlier)]
