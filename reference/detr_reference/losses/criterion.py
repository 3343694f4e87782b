"""The three losses of one set of predictions, once it is known which of them answers for which box.

Source: read with facebookresearch/detr, models/detr.py (`SetCriterion`). Clauses: spec chapter 15.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_reference.losses.batch_targets import BatchTargets
from detr_reference.losses.box_losses import giou_box_loss, l1_box_loss
from detr_reference.losses.class_losses import cross_entropy_class_loss, focal_class_loss, query_classes
from detr_reference.losses.matching import hungarian_matching, matched_targets

CLASS_COST_OF = {"focal": "focal", "cross_entropy": "softmax"}  # the class loss, and the cost that belongs to it

Losses = dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Criterion:
    """class, L1 and GIoU loss under one choice of settings.

    Attributes:
        class_loss: "focal", or "cross_entropy", whose last class is "no object".
        alpha, gamma: of focal loss and focal cost.
        no_object_weight: of the cross entropy.
        cost_class, cost_bbox, cost_giou: weights in the matching.
        giou_eps: of the GIoU, in the cost and in the loss.

    Raises:
        ValueError: the class loss is unknown, or no_object_weight is not positive.
    """

    class_loss: str = "focal"
    alpha: float = 0.25
    gamma: float = 2.0
    no_object_weight: float = 0.1
    cost_class: float = 2.0
    cost_bbox: float = 5.0
    cost_giou: float = 2.0
    giou_eps: float = 0.0

    def __post_init__(self) -> None:
        if self.class_loss not in CLASS_COST_OF:
            raise ValueError(f"class_loss must be one of {tuple(CLASS_COST_OF)}, got {self.class_loss!r}")
        if self.no_object_weight <= 0:
            raise ValueError(f"no_object_weight must be positive, got {self.no_object_weight}")

    def num_classes(self, channels: int) -> int:
        """Classes that a box may have, out of so many channels."""
        return channels if self.class_loss == "focal" else channels - 1

    def assignment(
        self, logits: Float[Tensor, "batch query class"], boxes: Float[Tensor, "batch query 4"], targets: BatchTargets
    ) -> dict[str, Int[Tensor, " pair"]]:
        """The cheapest one of these predictions, see `hungarian_matching`."""
        return hungarian_matching(
            logits,
            boxes,
            *targets,
            class_cost=CLASS_COST_OF[self.class_loss],
            cost_class=self.cost_class,
            cost_bbox=self.cost_bbox,
            cost_giou=self.cost_giou,
            alpha=self.alpha,
            gamma=self.gamma,
            giou_eps=self.giou_eps,
        )

    def matched(
        self,
        logits: Float[Tensor, "batch query class"],
        boxes: Float[Tensor, "batch query 4"],
        targets: BatchTargets,
        num_boxes: Float[Tensor, ""],
    ) -> Losses:
        """Losses against the targets of the cheapest assignment of these very predictions."""
        pairs = self.assignment(logits, boxes, targets)
        return self.of_pairs(logits, boxes, targets, pairs, num_boxes)

    def of_pairs(
        self,
        logits: Float[Tensor, "batch query class"],
        boxes: Float[Tensor, "batch query 4"],
        targets: BatchTargets,
        pairs: dict[str, Int[Tensor, " pair"]],
        num_boxes: Float[Tensor, ""],
        asked: Bool[Tensor, "batch query"] | None = None,
    ) -> Losses:
        """Losses of these pairs; the class loss is that of all queries, or of those asked.

        Half precision is widened to float32 first; the results have the dtype of the logits.
        """
        wide = torch.promote_types(logits.dtype, torch.float32)
        box = matched_targets(pairs, targets)
        ours = boxes.to(wide)[pairs["image"], pairs["query"]]
        theirs = targets.boxes.detach().to(wide)[box]
        losses = {
            "loss_class": self._class_loss(logits.to(wide), targets.labels[box], pairs, num_boxes, asked),
            "loss_bbox": l1_box_loss(ours, theirs, num_boxes),
            "loss_giou": giou_box_loss(ours, theirs, num_boxes, eps=self.giou_eps),
        }
        return {name: loss.to(logits.dtype) for name, loss in losses.items()}

    def _class_loss(
        self,
        logits: Float[Tensor, "batch query class"],
        pair_labels: Int[Tensor, " pair"],
        pairs: dict[str, Int[Tensor, " pair"]],
        num_boxes: Float[Tensor, ""],
        asked: Bool[Tensor, "batch query"] | None,
    ) -> Float[Tensor, ""]:
        batch, queries, channels = logits.shape
        background = self.num_classes(channels)
        classes = query_classes(pairs, pair_labels, batch, queries, background)
        if asked is not None:
            logits, classes = logits[asked], classes[asked]
        if self.class_loss == "focal":
            return focal_class_loss(logits, classes, num_boxes, alpha=self.alpha, gamma=self.gamma)
        return cross_entropy_class_loss(logits, classes, no_object_weight=self.no_object_weight)
