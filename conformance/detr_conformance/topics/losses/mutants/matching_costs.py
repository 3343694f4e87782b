"""Mutants of the cost of a pair (HM-4 to HM-12)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.matching import Costs, Matching, MatchingByHand


@mutant(
    "matching-focal-softmax", rejects="HM-4", operation="hungarian_matching", origin="DETR's cost in a DINO criterion"
)
class SoftmaxForFocal(MatchingByHand):
    """Takes the softmax probability for the class cost, whatever was asked for."""

    def focal(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        return -logits.softmax(-1)[:, labels]


@mutant(
    "matching-focal-probability", rejects="HM-4", operation="hungarian_matching", origin="-sigmoid as in early ports"
)
class ProbabilityForFocal(MatchingByHand):
    """Takes the negative sigmoid probability."""

    def focal(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        return -logits.sigmoid()[:, labels]


@mutant(
    "matching-positive-only", rejects="HM-4", operation="hungarian_matching", origin="focal cost without its negative"
)
class PositiveOnly(MatchingByHand):
    """Forgets what the query costs as background."""

    def negative(self, p: Costs, settings: Matching) -> Costs:
        return torch.zeros_like(p)


@mutant("matching-terms-added", rejects="HM-4", operation="hungarian_matching", origin="a sign")
class TermsAdded(MatchingByHand):
    """Adds the negative term to the positive one."""

    def negative(self, p: Costs, settings: Matching) -> Costs:
        return -super().negative(p, settings)


@mutant("matching-powers-swapped", rejects="HM-4", operation="hungarian_matching", origin="p and 1 - p mixed up")
class PowersSwapped(MatchingByHand):
    """Weighs the positive term by p^gamma and the negative one by (1 - p)^gamma."""

    def positive(self, p: Costs, settings: Matching) -> Costs:
        return settings.alpha * p.pow(settings.gamma) * -torch.log(p + self.eps)

    def negative(self, p: Costs, settings: Matching) -> Costs:
        return (1 - settings.alpha) * (1 - p).pow(settings.gamma) * -torch.log(1 - p + self.eps)


@mutant(
    "matching-alpha-swapped", rejects="HM-5", operation="hungarian_matching", origin="alpha taken for the background's"
)
class AlphaSwapped(MatchingByHand):
    """Weighs the positive term by 1 - alpha."""

    def positive(self, p: Costs, settings: Matching) -> Costs:
        return super().positive(p, Matching(alpha=1 - settings.alpha, gamma=settings.gamma))

    def negative(self, p: Costs, settings: Matching) -> Costs:
        return super().negative(p, Matching(alpha=1 - settings.alpha, gamma=settings.gamma))


@mutant("matching-gamma-missing", rejects="HM-5", operation="hungarian_matching", origin="balanced cross entropy")
class GammaMissing(MatchingByHand):
    """Leaves out the powers."""

    def focal(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        return super().focal(logits, labels, Matching(alpha=settings.alpha, gamma=0.0))


@mutant(
    "matching-focal-constants", rejects="HM-5", operation="hungarian_matching", origin="DETR-family matchers' constants"
)
class FocalConstants(MatchingByHand):
    """Takes alpha 0.25 and gamma 2 whatever the settings say."""

    def focal(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        return super().focal(logits, labels, Matching())


@mutant("matching-log-softmax", rejects="HM-6", operation="hungarian_matching", origin="the loss taken for the cost")
class LogSoftmax(MatchingByHand):
    """Takes the negative log probability."""

    def softmax(self, logits: Tensor, labels: Tensor) -> Costs:
        return -logits.log_softmax(-1)[:, labels]


@mutant(
    "matching-without-no-object", rejects="HM-6", operation="hungarian_matching", origin="logits[..., :-1].softmax(-1)"
)
class WithoutNoObject(MatchingByHand):
    """Leaves "no object" out of the softmax."""

    def softmax(self, logits: Tensor, labels: Tensor) -> Costs:
        return -logits[:, :-1].softmax(-1)[:, labels]


@mutant(
    "matching-softmax-over-queries", rejects="HM-6", operation="hungarian_matching", origin="softmax(0) of a flat batch"
)
class OverQueries(MatchingByHand):
    """Normalises over the queries in place of the classes."""

    def softmax(self, logits: Tensor, labels: Tensor) -> Costs:
        return -logits.softmax(0)[:, labels]


@mutant("matching-labels-from-one", rejects="HM-7", operation="hungarian_matching", origin="COCO's category ids")
class LabelsFromOne(MatchingByHand):
    """Counts classes from 1."""

    def of_classes(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        return super().of_classes(logits, (labels - 1).clamp(min=0), settings)


@mutant("matching-best-class", rejects="HM-7", operation="hungarian_matching", origin="class-agnostic first stages")
class BestClass(MatchingByHand):
    """Asks for the query's best class, not for the box's."""

    def of_classes(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        best = logits.max(-1, keepdim=True).values.expand(-1, logits.shape[-1])
        return super().of_classes(best, labels, settings)


@mutant("matching-labels-sorted", rejects="HM-7", operation="hungarian_matching", origin="unique() of the labels")
class LabelsSorted(MatchingByHand):
    """Gives the boxes of each image their labels in rising order."""

    def labels(self, labels: Int[Tensor, " box"], counts: Int[Tensor, " batch"]) -> Int[Tensor, " box"]:
        return torch.cat([own.sort().values for own in labels.split(counts.tolist())])


@mutant("matching-l1-of-corners", rejects="HM-8", operation="hungarian_matching", origin="boxes converted too early")
class L1OfCorners(MatchingByHand):
    """Takes the distance of corners."""

    def l1(self, boxes: Tensor, targets: Tensor) -> Costs:
        return super().l1(self.corners(boxes), self.corners(targets))


@mutant("matching-l2", rejects="HM-8", operation="hungarian_matching", origin="cdist without p=1")
class L2(MatchingByHand):
    """Takes the Euclidean distance."""

    def l1(self, boxes: Tensor, targets: Tensor) -> Costs:
        return torch.cdist(boxes, targets)


@mutant(
    "matching-smooth-l1", rejects="HM-8", operation="hungarian_matching", origin="smooth_l1_loss of box regressions"
)
class SmoothL1(MatchingByHand):
    """Takes the smooth L1 distance."""

    def l1(self, boxes: Tensor, targets: Tensor) -> Costs:
        ours, theirs = torch.broadcast_tensors(boxes[:, None], targets[None])
        return F.smooth_l1_loss(ours, theirs, reduction="none", beta=0.2).sum(-1)


@mutant("matching-centres-only", rejects="HM-8", operation="hungarian_matching", origin="matching of points")
class CentresOnly(MatchingByHand):
    """Takes the distance of centres."""

    def l1(self, boxes: Tensor, targets: Tensor) -> Costs:
        return super().l1(boxes[:, :2], targets[:, :2])


@mutant(
    "matching-relative-l1", rejects="HM-8", operation="hungarian_matching", origin="box deltas of two-stage detectors"
)
class RelativeL1(MatchingByHand):
    """Divides the distance by the size of the box."""

    def l1(self, boxes: Tensor, targets: Tensor) -> Costs:
        sizes = targets[:, 2:].repeat(1, 2).clamp(min=1e-3)
        return ((boxes[:, None] - targets) / sizes).abs().sum(-1)


@mutant(
    "matching-iou", rejects="HM-9", operation="hungarian_matching", origin="box_iou in place of generalized_box_iou"
)
class WithoutHull(MatchingByHand):
    """Leaves out the hull."""

    def from_areas(self, shared: Costs, both: Costs, hull: Costs, eps: float) -> Costs:
        return self.share(shared, both + eps)


@mutant("matching-giou-as-corners", rejects="HM-9", operation="hungarian_matching", origin="a conversion left out")
class CentresAsCorners(MatchingByHand):
    """Takes centre and size for corners."""

    def corners(self, boxes: Tensor) -> Tensor:
        return boxes


@mutant("matching-giou-sign", rejects="HM-9", operation="hungarian_matching", origin="cost and similarity mixed up")
class GIoUSign(MatchingByHand):
    """Prefers boxes that overlap little."""

    def giou(self, boxes: Tensor, targets: Tensor, eps: float) -> Costs:
        return -super().giou(boxes, targets, eps)


@mutant(
    "matching-giou-hull-of-sizes", rejects="HM-9", operation="hungarian_matching", origin="max of sizes as the hull"
)
class HullOfSizes(MatchingByHand):
    """Takes the larger width and height for the hull's."""

    def giou(self, boxes: Tensor, targets: Tensor, eps: float) -> Costs:
        hull = torch.maximum(boxes[:, None, 2:], targets[None, :, 2:]).prod(-1)
        own = boxes[:, None, 2:].prod(-1) + targets[None, :, 2:].prod(-1)
        shared = self.shared_area(boxes, targets)
        return self.from_areas(shared, own - shared, hull, eps)

    def shared_area(self, boxes: Tensor, targets: Tensor) -> Costs:
        ours, theirs = self.corners(boxes)[:, None], self.corners(targets)[None]
        sides = torch.minimum(ours[..., 2:], theirs[..., 2:]) - torch.maximum(ours[..., :2], theirs[..., :2])
        return sides.clamp(0).prod(-1)


@mutant("matching-weights-swapped", rejects="HM-10", operation="hungarian_matching", origin="positional arguments")
class WeightsSwapped(MatchingByHand):
    """Weighs L1 with the weight of GIoU and the other way round."""

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, settings: Matching) -> Costs:
        swapped = replace(settings, cost_bbox=settings.cost_giou, cost_giou=settings.cost_bbox)
        return super().cost(logits, boxes, labels, targets, swapped)


@mutant("matching-class-unweighted", rejects="HM-10", operation="hungarian_matching", origin="a forgotten factor")
class ClassUnweighted(MatchingByHand):
    """Adds the class cost with weight 1."""

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, settings: Matching) -> Costs:
        return super().cost(logits, boxes, labels, targets, replace(settings, cost_class=1.0))


@mutant("matching-standard-weights", rejects="HM-10", operation="hungarian_matching", origin="constants of one model")
class StandardWeights(MatchingByHand):
    """Takes 2, 5, 2 whatever the settings say."""

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, settings: Matching) -> Costs:
        usual = replace(settings, cost_class=2.0, cost_bbox=5.0, cost_giou=2.0)
        return super().cost(logits, boxes, labels, targets, usual)


@mutant("matching-eps-missing", rejects="HM-11", operation="hungarian_matching", origin="focal cost without 1e-8")
class EpsMissing(MatchingByHand):
    """Takes the logarithm of 0."""

    eps = 0.0

    def repaired(self, cost: Tensor) -> Tensor:
        return cost.nan_to_num(nan=1e3, posinf=1e3, neginf=-1e3)


@mutant(
    "matching-eps-large", rejects="HM-11", operation="hungarian_matching", origin="an epsilon that half precision knows"
)
class EpsLarge(MatchingByHand):
    """Adds 1e-3 inside the logarithms."""

    eps = 1e-3


@mutant("matching-from-logits", rejects="HM-11", operation="hungarian_matching", origin="logsigmoid for stability")
class FromLogits(MatchingByHand):
    """Takes logarithms from the logits, where they have no end."""

    def focal(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        p, chosen = logits[:, labels].sigmoid(), logits[:, labels]
        positive = settings.alpha * (1 - p).pow(settings.gamma) * -F.logsigmoid(chosen)
        return positive + (1 - settings.alpha) * p.pow(settings.gamma) * F.logsigmoid(-chosen)


@mutant("matching-in-half", rejects="HM-12", operation="hungarian_matching", origin="transformers' matchers")
class InHalf(MatchingByHand):
    """Computes costs in the dtype of the predictions."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return dtype

    def l1(self, boxes: Tensor, targets: Tensor) -> Costs:
        return (boxes[:, None] - targets).abs().sum(-1)


@mutant(
    "matching-stored-in-half", rejects="HM-12", operation="hungarian_matching", origin="costs stored in half precision"
)
class StoredInHalf(MatchingByHand):
    """Computes in float32 and keeps the costs in the dtype of the predictions."""

    kept = torch.float32

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        self.kept = dtype
        return super().wide(dtype)

    def repaired(self, cost: Tensor) -> Tensor:
        return cost.to(self.kept).to(cost.dtype)


@mutant("matching-softmax-overflows", rejects="HM-11", operation="hungarian_matching", origin="exp(x) / exp(x).sum()")
class SoftmaxOverflows(MatchingByHand):
    """Takes exponentials of logits as they are, and numbers for what is none."""

    def softmax(self, logits: Tensor, labels: Tensor) -> Costs:
        odds = logits.float().exp()
        return -(odds / odds.sum(-1, keepdim=True)).nan_to_num()[:, labels].to(logits.dtype)
