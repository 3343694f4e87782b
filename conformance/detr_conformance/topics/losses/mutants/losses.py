"""The detection losses, one overridable step after another, with targets cut into images as in the public criteria.

The matching is that of `matching`. Unchanged it is a twin; the mutants and the other twins of chapter 15's second half
override one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.losses.mutants.matching import MatchingByHand

LOSSES = "detection_losses"

Losses = dict[str, Tensor]
Pairs = list[tuple[Tensor, Tensor]]  # queries and boxes of each image
Logits = Float[Tensor, "batch query class"]
Boxes = Float[Tensor, "batch query 4"]
Some = Float[Tensor, "pair 4"]


@dataclass(frozen=True)
class Chosen:
    """The settings of one call."""

    class_loss: str = "focal"
    alpha: float = 0.25
    gamma: float = 2.0
    no_object_weight: float = 0.1
    cost_class: float = 2.0
    cost_bbox: float = 5.0
    cost_giou: float = 2.0
    giou_eps: float = 0.0
    encoder_targets: str = "classes"
    contrastive: bool = True
    padded_slots: str = "background"


@dataclass
class Batch:
    """Labels and boxes of each image."""

    labels: list[Tensor]
    boxes: list[Tensor]

    @property
    def counts(self) -> list[int]:
        return [len(own) for own in self.labels]


@dataclass(frozen=True)
class Predicted:
    """A set of predictions, and what it is held to; `asked` are the slots that the class loss is about, None all."""

    suffix: str
    logits: Logits
    boxes: Boxes
    pairs: Pairs
    batch: Batch
    number: Tensor
    chosen: Chosen
    asked: Bool[Tensor, "batch slot"] | None = None


@twin("losses-by-hand", operation="detection_losses", origin="facebookresearch/detr, models/detr.py, SetCriterion")
class LossesByHand:
    """Cuts the targets into images, and sums up what is wrong with each set of predictions."""

    matching: MatchingByHand = MatchingByHand()

    def __call__(
        self,
        pred_logits: Float[Tensor, "layer batch query class"],
        pred_boxes: Float[Tensor, "layer batch query 4"],
        target_labels: Int[Tensor, " box"],
        target_boxes: Float[Tensor, "box 4"],
        target_counts: Int[Tensor, " batch"],
        enc_logits: Float[Tensor, "batch token class"] | None = None,
        enc_boxes: Float[Tensor, "batch token 4"] | None = None,
        dn_logits: Float[Tensor, "layer batch slot class"] | None = None,
        dn_boxes: Float[Tensor, "layer batch slot 4"] | None = None,
        **settings: Any,
    ) -> Losses:
        chosen, wide = Chosen(**settings), self.wide(pred_logits.dtype)
        self.check(pred_logits, target_labels, target_boxes, target_counts)
        counts = target_counts.tolist()
        batch = Batch(self.cut(target_labels, counts), self.cut(target_boxes.detach().to(wide), counts))
        number = self.number(batch, wide)
        losses = self.decoder(pred_logits.to(wide), pred_boxes.to(wide), batch, number, chosen)
        if enc_logits is not None and enc_boxes is not None:
            losses |= self.encoder(enc_logits.to(wide), enc_boxes.to(wide), batch, number, chosen)
        if dn_logits is not None and dn_boxes is not None:
            losses |= self.denoising(dn_logits.to(wide), dn_boxes.to(wide), batch, number, chosen)
        self.leave(target_labels, target_boxes)
        return {name: self.result(loss, pred_logits.dtype) for name, loss in losses.items()}

    def cut(self, targets: Tensor, counts: list[int]) -> list[Tensor]:
        return list(targets.split(counts))

    def leave(self, target_labels: Tensor, target_boxes: Tensor) -> None:
        """What the call does last."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64 if dtype == torch.float64 else torch.float32

    def result(self, loss: Tensor, dtype: torch.dtype) -> Tensor:
        return loss.to(dtype)

    def check(self, logits: Tensor, labels: Tensor, boxes: Tensor, counts: Tensor) -> None:
        if len(counts) != logits.shape[1] or int(counts.sum()) != len(labels) or len(labels) != len(boxes):
            raise ValueError(f"{counts.tolist()} boxes in {logits.shape[1]} images, {len(labels)} of them given")

    # -- the number of boxes

    def number(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        return self.at_least_one(self.over_processes(torch.tensor(self.boxes(batch), dtype=dtype)))

    def boxes(self, batch: Batch) -> float:
        return float(sum(batch.counts))

    def over_processes(self, number: Tensor) -> Tensor:
        if not (dist.is_available() and dist.is_initialized()):
            return number
        dist.all_reduce(number)
        return number / dist.get_world_size()

    def at_least_one(self, number: Tensor) -> Tensor:
        return number.clamp(min=1)

    # -- sets of predictions

    def decoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        losses: Losses = {}
        for suffix, layer in self.layers("", len(logits)):
            pairs = self.layer_pairs(layer, logits, boxes, batch, chosen)
            losses |= self.three(Predicted(suffix, logits[layer], boxes[layer], pairs, batch, number, chosen))
        return losses

    def layers(self, prefix: str, number: int) -> list[tuple[str, int]]:
        return [(prefix, number - 1)] + [(f"{prefix}_{layer}", layer) for layer in range(number - 1)]

    def layer_pairs(self, layer: int, logits: Tensor, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        return self.pairs(logits[layer], boxes[layer], batch, chosen)

    def pairs(self, logits: Logits, boxes: Boxes, batch: Batch, chosen: Chosen) -> Pairs:
        flat = torch.cat(batch.labels), torch.cat(batch.boxes), torch.tensor(batch.counts)
        found = self.matching(logits.detach(), boxes.detach(), *flat, **self.costs(chosen))
        images = [found["image"] == image for image in range(len(logits))]
        return [(found["query"][own], found["target"][own]) for own in images]

    def costs(self, chosen: Chosen) -> dict[str, Any]:
        names = ("cost_class", "cost_bbox", "cost_giou", "alpha", "gamma", "giou_eps")
        class_cost = "focal" if chosen.class_loss == "focal" else "softmax"
        return {"class_cost": class_cost} | {name: getattr(chosen, name) for name in names}

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        asked = self.objects(batch) if chosen.encoder_targets == "objectness" else batch
        pairs = self.pairs(logits, boxes, asked, chosen)
        return self.three(Predicted("_enc", logits, boxes, pairs, asked, number, chosen))

    def objects(self, batch: Batch) -> Batch:
        return Batch([torch.zeros_like(own) for own in batch.labels], batch.boxes)

    # -- denoising

    def denoising(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        most = max(batch.counts)
        size = self.group_size(most, chosen)
        groups = self.groups(logits.shape[2], size)
        repeated = self.repeated(number, groups)
        asked = self.asked(batch.counts, most, logits.shape[2], chosen)
        losses: Losses = {}
        for suffix, layer in self.layers("_dn", len(logits)):
            pairs = self.known(logits[layer], boxes[layer], batch, groups, size, chosen)
            losses |= self.three(Predicted(suffix, logits[layer], boxes[layer], pairs, batch, repeated, chosen, asked))
        return losses

    def group_size(self, most: int, chosen: Chosen) -> int:
        return 2 * most if chosen.contrastive else most

    def groups(self, slots: int, size: int) -> int:
        if slots % max(size, 1):
            raise ValueError(f"{slots} slots in groups of {size}")
        return slots // max(size, 1)

    def repeated(self, number: Tensor, groups: int) -> Tensor:
        return number * max(groups, 1)

    def known(self, logits: Logits, boxes: Boxes, batch: Batch, groups: int, size: int, chosen: Chosen) -> Pairs:
        pairs = []
        for count in batch.counts:
            box = torch.arange(count).repeat(groups)
            pairs.append((self.first_slots(groups, size).repeat_interleave(count) + box, box))
        return pairs

    def first_slots(self, groups: int, size: int) -> Int[Tensor, " group"]:
        return torch.arange(groups) * size

    def asked(self, counts: list[int], most: int, slots: int, chosen: Chosen) -> Bool[Tensor, "batch slot"] | None:
        """Which slots the class loss is about; None means all."""
        if chosen.padded_slots == "background":
            return None
        return torch.stack([torch.arange(slots) % max(most, 1) < count for count in counts])

    # -- three losses

    def three(self, at: Predicted) -> Losses:
        ours = torch.cat([at.boxes[image, query] for image, (query, _) in enumerate(at.pairs)])
        theirs = torch.cat([at.batch.boxes[image][box] for image, (_, box) in enumerate(at.pairs)])
        return {
            f"loss_class{at.suffix}": self.of_classes(at.logits, at.pairs, at.batch, at.number, at.chosen, at.asked),
            f"loss_bbox{at.suffix}": self.divided(self.l1(ours, theirs), at.number),
            f"loss_giou{at.suffix}": self.divided(self.giou(ours, theirs, at.chosen.giou_eps), at.number),
        }

    def divided(self, total: Tensor, number: Tensor) -> Tensor:
        return total / number

    def l1(self, ours: Some, theirs: Some) -> Tensor:
        return F.l1_loss(ours, theirs, reduction="sum")

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        return (1 - self.matching.giou(ours, theirs, eps).diagonal()).sum()

    # -- classes

    def of_classes(
        self, logits: Logits, pairs: Pairs, batch: Batch, number: Tensor, chosen: Chosen, asked: Tensor | None
    ) -> Tensor:
        background = logits.shape[-1] - (chosen.class_loss != "focal")
        classes = self.classes(logits, pairs, batch, background)
        if asked is not None:
            logits, classes = logits[asked], classes[asked]
        if chosen.class_loss == "focal":
            return self.focal_loss(logits, classes, number, chosen)
        return self.cross_entropy(logits.flatten(0, -2), classes.flatten(), number, chosen)

    def classes(self, logits: Logits, pairs: Pairs, batch: Batch, background: int) -> Int[Tensor, "batch query"]:
        classes = torch.full(logits.shape[:2], background)
        for image, (query, box) in enumerate(pairs):
            classes[image, query] = self.labels(batch, image, box)
        return classes

    def labels(self, batch: Batch, image: int, box: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
        return batch.labels[image][box]

    def focal_loss(self, logits: Tensor, classes: Tensor, number: Tensor, chosen: Chosen) -> Tensor:
        yes = F.one_hot(classes, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
        return self.divided(self.summed(self.focal(logits, yes, chosen)), number)

    def summed(self, loss: Tensor) -> Tensor:
        return loss.sum()

    def focal(self, logits: Tensor, yes: Tensor, chosen: Chosen) -> Tensor:
        wrong = (logits.sigmoid() - yes).abs()
        weight = chosen.alpha * yes + (1 - chosen.alpha) * (1 - yes)
        plain = F.binary_cross_entropy_with_logits(logits, yes, reduction="none")
        return weight * wrong.pow(chosen.gamma) * plain

    def cross_entropy(
        self, logits: Float[Tensor, "token class"], classes: Int[Tensor, " token"], number: Tensor, chosen: Chosen
    ) -> Tensor:
        if not len(logits):
            return logits.sum()
        return F.cross_entropy(logits, classes, self.weights(logits, chosen))

    def weights(self, logits: Tensor, chosen: Chosen) -> Float[Tensor, " class"]:
        weights = logits.new_ones(logits.shape[-1])
        weights[-1] = chosen.no_object_weight
        return weights
