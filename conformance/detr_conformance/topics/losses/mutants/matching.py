"""Hungarian matching, one overridable step after another, as the public implementations do it: one cost matrix of all
queries and all boxes of the batch, cut into images afterwards.

Unchanged it is a twin; the mutants and the other twins of chapter 15's first half override one step.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_conformance.evidence.registry import twin

MATCHING = "hungarian_matching"

Costs = Float[Tensor, "prediction box"]  # of all images, one after another
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]  # queries and boxes of one image


@dataclass(frozen=True)
class Matching:
    """The settings of one call."""

    class_cost: str = "focal"
    cost_class: float = 2.0
    cost_bbox: float = 5.0
    cost_giou: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    giou_eps: float = 0.0


@twin("matching-by-hand", operation="hungarian_matching", origin="facebookresearch/detr, models/matcher.py")
class MatchingByHand:
    """Makes one cost matrix for the batch and cuts the images out of it."""

    eps = 1e-8

    def __call__(
        self,
        pred_logits: Float[Tensor, "batch query class"],
        pred_boxes: Float[Tensor, "batch query 4"],
        target_labels: Int[Tensor, " box"],
        target_boxes: Float[Tensor, "box 4"],
        target_counts: Int[Tensor, " batch"],
        *,
        class_cost: str = "focal",
        cost_class: float = 2.0,
        cost_bbox: float = 5.0,
        cost_giou: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        giou_eps: float = 0.0,
    ) -> dict[str, Tensor]:
        settings = Matching(class_cost, cost_class, cost_bbox, cost_giou, alpha, gamma, giou_eps)
        self.check_predictions(pred_logits, pred_boxes)
        self.check_targets(pred_logits, target_labels, target_boxes, target_counts)
        wide = self.wide(pred_logits.dtype)
        with self.without_gradients():
            cost = self.cost(
                self.flat(pred_logits).to(wide),
                self.flat(pred_boxes).to(wide),
                self.labels(target_labels, target_counts),
                target_boxes.to(wide),
                settings,
            )
            per_image = self.cut(self.repaired(cost.view(*pred_logits.shape[:2], -1)), target_counts.tolist())
            result = self.result([self.assigned(self.readable(own)) for own in per_image], target_counts)
        self.leave(target_boxes)
        return result

    def without_gradients(self) -> AbstractContextManager[Any]:
        return torch.no_grad()

    def leave(self, target_boxes: Tensor) -> None:
        """What the call does last."""

    # -- checks

    def check_predictions(self, logits: Tensor, boxes: Tensor) -> None:
        for image in range(logits.shape[0]):
            for query in range(logits.shape[1]):
                whole = torch.cat((logits[image, query], boxes[image, query].to(logits)))
                if not whole.isfinite().all():
                    raise self.broken(image, query, logits.shape[1])

    def broken(self, image: int, query: int, queries: int) -> Exception:
        return ValueError(f"prediction [{image}, {query}] is broken")

    def check_targets(self, logits: Tensor, labels: Tensor, boxes: Tensor, counts: Tensor) -> None:
        fits = len(labels) == len(boxes) == int(counts.sum()) and len(counts) == len(logits)
        if not fits or min(counts.tolist()) < 0:
            raise ValueError(f"{len(labels)} labels and {len(boxes)} boxes for images of {counts.tolist()}")
        self.check_labels(labels, logits.shape[-1])

    def check_labels(self, labels: Tensor, classes: int) -> None:
        if any(not 0 <= label < classes for label in labels.tolist()):
            raise IndexError(f"classes {labels.tolist()} of {classes}")

    # -- costs

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64 if dtype == torch.float64 else torch.float32

    def flat(self, predictions: Float[Tensor, "batch query channel"]) -> Float[Tensor, "prediction channel"]:
        return predictions.reshape(-1, predictions.shape[-1])

    def labels(self, labels: Int[Tensor, " box"], counts: Int[Tensor, " batch"]) -> Int[Tensor, " box"]:
        return labels

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, settings: Matching) -> Costs:
        return (
            settings.cost_bbox * self.l1(boxes, targets)
            + settings.cost_class * self.of_classes(logits, labels, settings)
            - settings.cost_giou * self.giou(boxes, targets, settings.giou_eps)
        )

    def of_classes(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        if settings.class_cost == "softmax":
            return self.softmax(logits, labels)
        return self.focal(logits, labels, settings)

    def softmax(self, logits: Tensor, labels: Tensor) -> Costs:
        return -logits.softmax(-1)[:, labels]

    def focal(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        p = logits[:, labels].sigmoid()
        return self.positive(p, settings) - self.negative(p, settings)

    def positive(self, p: Costs, settings: Matching) -> Costs:
        return settings.alpha * (1 - p).pow(settings.gamma) * -torch.log(p + self.eps)

    def negative(self, p: Costs, settings: Matching) -> Costs:
        return (1 - settings.alpha) * p.pow(settings.gamma) * -torch.log(1 - p + self.eps)

    def l1(self, boxes: Tensor, targets: Tensor) -> Costs:
        return torch.cdist(boxes, targets, p=1)

    def giou(self, boxes: Tensor, targets: Tensor, eps: float) -> Costs:
        ours, theirs = self.corners(boxes)[:, None], self.corners(targets)[None]
        inner = (torch.minimum(ours[..., 2:], theirs[..., 2:]) - torch.maximum(ours[..., :2], theirs[..., :2])).clamp(0)
        outer = torch.maximum(ours[..., 2:], theirs[..., 2:]) - torch.minimum(ours[..., :2], theirs[..., :2])
        shared, hull = inner.prod(-1), outer.prod(-1)
        both = (ours[..., 2:] - ours[..., :2]).prod(-1) + (theirs[..., 2:] - theirs[..., :2]).prod(-1) - shared
        return self.from_areas(shared, both, hull, eps)

    def from_areas(self, shared: Costs, both: Costs, hull: Costs, eps: float) -> Costs:
        return self.share(shared, both + eps) - self.share(hull - both, hull + eps)

    def share(self, part: Costs, whole: Costs) -> Costs:
        return torch.where(whole > 0, part / whole, 0.0)

    def corners(self, boxes: Tensor) -> Tensor:
        half = boxes[..., 2:] / 2
        return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), -1)

    # -- assignment

    def repaired(self, cost: Float[Tensor, "batch query box"]) -> Float[Tensor, "batch query box"]:
        return cost

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Float[Tensor, "query own"]]:
        return [own[image] for image, own in enumerate(cost.split(counts, -1))]

    def readable(self, cost: Float[Tensor, "query own"]) -> NDArray[np.float64]:
        return cost.cpu().double().numpy()

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        query, box = linear_sum_assignment(cost)
        return query, box

    def result(self, pairs: list[Pairs], counts: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        flat = [(image, int(q), int(t)) for image, own in enumerate(pairs) for q, t in zip(*own, strict=True)]
        table = torch.tensor(flat, dtype=torch.int64).view(-1, 3)
        return dict(zip(("image", "query", "target"), table.unbind(1), strict=True))
