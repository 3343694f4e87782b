"""Right detection losses, each written in another way than the reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.losses.mutants.losses import (
    Chosen,
    Losses,
    LossesByHand,
    Predicted,
    Some,
)
from detr_conformance.topics.losses.twins.matching import LastQueryFirst


@twin("losses-log-space", operation="detection_losses", origin="focal loss from log probabilities")
class LogSpace(LossesByHand):
    """Takes the focal loss from logarithms, and the cross entropy from a log softmax."""

    matching = LastQueryFirst()

    def focal(self, logits: Tensor, yes: Tensor, chosen: Chosen) -> Tensor:
        right, wrong = (
            F.logsigmoid(torch.where(yes > 0, logits, -logits)),
            F.logsigmoid(torch.where(yes > 0, -logits, logits)),
        )
        weight = torch.where(yes > 0, chosen.alpha, 1 - chosen.alpha)
        return -weight * torch.exp(chosen.gamma * wrong) * right

    def cross_entropy(
        self, logits: Float[Tensor, "token class"], classes: Int[Tensor, " token"], number: Tensor, chosen: Chosen
    ) -> Tensor:
        weight = torch.where(classes == logits.shape[-1] - 1, chosen.no_object_weight, 1.0).to(logits.dtype)
        share = weight / weight.sum().clamp(min=1e-30)
        return (share * (logits.logsumexp(-1) - logits.gather(-1, classes[:, None])[:, 0])).sum()


@twin("losses-image-by-image", operation="detection_losses", origin="mmdetection, multi_apply over images")
class ImageByImage(LossesByHand):
    """Sums up the box losses of each image, then the images."""

    def three(self, at: Predicted) -> Losses:
        l1, giou = at.boxes.sum() * 0, at.boxes.sum() * 0
        for image, (query, box) in enumerate(at.pairs):
            ours, theirs = at.boxes[image, query], at.batch.boxes[image][box]
            l1 = l1 + (ours - theirs).abs().sum(0).sum()
            giou = giou + self.giou(ours, theirs, at.chosen.giou_eps)
        return {
            f"loss_class{at.suffix}": self.of_classes(at.logits, at.pairs, at.batch, at.number, at.chosen, at.asked),
            f"loss_bbox{at.suffix}": l1 / at.number,
            f"loss_giou{at.suffix}": giou / at.number,
        }

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        a, b = self.matching.corners(ours), self.matching.corners(theirs)
        inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
        hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(-1)
        both = ours[:, 2:].prod(-1) + theirs[:, 2:].prod(-1) - inner
        return (2 - inner / (both + eps) - (both + eps) / (hull + eps)).sum()


@twin("losses-whole-batch", operation="detection_losses", origin="losses as masked sums over all queries")
class WholeBatch(LossesByHand):
    """Gives every query a target, its own box where it has none, and weighs these by 0."""

    def three(self, at: Predicted) -> Losses:
        targets, matched = at.boxes.detach().clone(), torch.zeros(at.boxes.shape[:2], dtype=torch.bool)
        for image, (query, box) in enumerate(at.pairs):
            targets[image, query] = at.batch.boxes[image][box]
            matched[image, query] = True
        distance = (at.boxes - targets).abs().sum(-1)
        loss = 1 - torch.stack(
            [self.matching.giou(*each, at.chosen.giou_eps).diagonal() for each in zip(at.boxes, targets, strict=True)]
        )
        return {
            f"loss_class{at.suffix}": self.of_classes(at.logits, at.pairs, at.batch, at.number, at.chosen, at.asked),
            f"loss_bbox{at.suffix}": torch.where(matched, distance, 0.0).sum() / at.number,
            f"loss_giou{at.suffix}": torch.where(matched, loss, 0.0).sum() / at.number,
        }


@twin("losses-in-float64", operation="detection_losses", origin="double precision inside")
class InFloat64(LossesByHand):
    """Computes in float64 whatever the predictions are."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64
