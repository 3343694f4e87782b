"""Contrastive denoising over the flat list of targets, one overridable step after another.

Unchanged it is a twin; the mutants of chapter 13 override one step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin

Labels = Int[Tensor, "group kind box"]
Boxes = Float[Tensor, "group kind box 4"]
Mask = Bool[Tensor, "query query"]


@dataclass(frozen=True)
class Sizes:
    """Of one call.

    Attributes:
        counts: boxes of each image.
        groups: G.
        largest: M, slots of a kind in a group.
        classes, embed: of the label embedding.
        queries: Q.
    """

    counts: list[int]
    groups: int
    largest: int
    classes: int
    embed: int
    queries: int

    @property
    def denoising(self) -> int:
        return self.groups * 2 * self.largest


@twin(
    "denoising-by-hand",
    operation="contrastive_denoising",
    origin="IDEA-Research/DINO, models/dino/dn_components.py: the list repeated, and scattered at the end",
)
class DenoisingByHand:
    """Noises 2 G copies of the list of all targets and scatters them into their slots."""

    def __call__(
        self,
        target_labels: Int[Tensor, " box"],
        target_boxes: Float[Tensor, "box 4"],
        target_counts: Int[Tensor, " batch"],
        label_embedding: Float[Tensor, "class embed"],
        *,
        num_queries: int,
        denoising_number: int = 100,
        label_noise_ratio: float = 0.5,
        box_noise_scale: float = 1.0,
    ) -> dict[str, Tensor]:
        counts = target_counts.tolist()
        self.check(target_labels, target_boxes, counts, len(label_embedding))
        groups, largest = self.groups(counts, denoising_number), self.largest(counts)
        classes, embed = label_embedding.shape
        sizes = Sizes(counts, groups, largest, classes, embed, num_queries)

        labels = self.labels(target_labels.expand(groups, 2, -1), self.ratio(label_noise_ratio), sizes)
        truth = target_boxes.to(self.wide(target_boxes.dtype)).expand(groups, 2, -1, -1)
        boxes = self.noised(truth, self.scale(box_noise_scale), sizes)

        image, box = self.places(counts)
        slot = self.slots(box, sizes)
        place = image.expand(slot.shape).flatten(), slot.flatten()
        content, references = self.blank(label_embedding, sizes), self.blank_references(target_boxes, sizes)
        rows = self.rows(label_embedding, labels).to(content.dtype)
        logits = self.references(boxes, box_noise_scale).to(references.dtype)
        return {
            "content": content.index_put(place, rows.flatten(0, 2)),
            "references": references.index_put(place, logits.flatten(0, 2)),
            "attn_mask": self.mask(sizes),
        }

    # -- sizes and places -------------------------------------------------------------------------------------

    def check(self, labels: Tensor, boxes: Tensor, counts: list[int], classes: int) -> None:
        if not sum(counts) == len(labels) == len(boxes):
            raise ValueError(f"{sum(counts)} boxes in all images, {len(labels)} labels and {len(boxes)} boxes")
        if not all(0 <= label < classes for label in labels.tolist()):
            raise ValueError(f"labels {labels.tolist()} of {classes} classes")

    def largest(self, counts: list[int]) -> int:
        return max(counts)

    def groups(self, counts: list[int], number: int) -> int:
        return max(1, number // max(1, *counts))

    def places(self, counts: list[int]) -> tuple[Int[Tensor, " box"], Int[Tensor, " box"]]:
        """The image of each target, and which of its image it is."""
        pairs = [(image, box) for image, count in enumerate(counts) for box in range(count)]
        image, box = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        return image, box

    def slots(self, box: Int[Tensor, " box"], sizes: Sizes) -> Labels:
        return self.copy(sizes) * sizes.largest + box

    def copy(self, sizes: Sizes) -> Int[Tensor, "group kind 1"]:
        """Which copy a group's positives are, and its negatives."""
        return torch.arange(2 * sizes.groups).view(sizes.groups, 2, 1)

    def blank(self, label_embedding: Tensor, sizes: Sizes) -> Float[Tensor, "batch query embed"]:
        return label_embedding.new_zeros(len(sizes.counts), sizes.denoising, sizes.embed)

    def blank_references(self, boxes: Tensor, sizes: Sizes) -> Float[Tensor, "batch query 4"]:
        return boxes.new_zeros(len(sizes.counts), sizes.denoising, 4)

    # -- labels -----------------------------------------------------------------------------------------------

    def ratio(self, label_noise_ratio: float) -> float:
        return label_noise_ratio

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        noised = labels.clone()
        chosen = self.chosen(noised.shape, ratio)
        noised[chosen] = self.drawn(noised[chosen], sizes.classes)
        return noised

    def chosen(self, shape: torch.Size, ratio: float) -> Bool[Tensor, "group kind box"]:
        return torch.rand(shape) < self.probability(ratio)

    def probability(self, ratio: float) -> float:
        return ratio * 0.5

    def drawn(self, labels: Int[Tensor, " chosen"], classes: int) -> Int[Tensor, " chosen"]:
        return torch.randint_like(labels, classes)

    def rows(self, label_embedding: Tensor, labels: Labels) -> Float[Tensor, "group kind box embed"]:
        return label_embedding[labels]

    # -- boxes ------------------------------------------------------------------------------------------------

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64 if dtype == torch.float64 else torch.float32

    def scale(self, box_noise_scale: float) -> float:
        return box_noise_scale

    def noised(self, boxes: Boxes, scale: float, sizes: Sizes) -> Boxes:
        centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
        corners = torch.cat((centre - half, centre + half), -1)
        return self.back(self.moved(corners, self.moves(boxes) * self.unit(boxes) * scale))

    def moves(self, boxes: Boxes) -> Boxes:
        """In half sides times scale."""
        return self.signs(boxes) * self.lengths(boxes)

    def signs(self, boxes: Boxes) -> Boxes:
        return torch.where(torch.rand_like(boxes) < 0.5, -1.0, 1.0)

    def lengths(self, boxes: Boxes) -> Boxes:
        return self.uniform(boxes) + self.kind(boxes)

    def uniform(self, boxes: Boxes) -> Boxes:
        return torch.rand_like(boxes)

    def kind(self, boxes: Boxes) -> Float[Tensor, "2 1 1"]:
        return torch.tensor([0.0, 1.0], dtype=boxes.dtype).view(2, 1, 1)

    def unit(self, boxes: Boxes) -> Boxes:
        return boxes[..., [2, 3, 2, 3]] * 0.5

    def moved(self, corners: Boxes, by: Boxes) -> Boxes:
        return (corners + by).clamp(0, 1)

    def back(self, corners: Boxes) -> Boxes:
        """Corners to centre and size."""
        low, high = corners[..., :2], corners[..., 2:]
        return torch.cat(((low + high) * 0.5, high - low), -1)

    def references(self, boxes: Boxes, scale: float) -> Boxes:
        boxes = boxes.clamp(0, 1)
        return boxes.clamp(min=1e-3).log() - (1 - boxes).clamp(min=1e-3).log()

    # -- mask -------------------------------------------------------------------------------------------------

    def mask(self, sizes: Sizes) -> Mask:
        total, size = sizes.denoising + sizes.queries, 2 * sizes.largest
        hidden = torch.zeros(total, total, dtype=torch.bool)
        hidden[:, : sizes.denoising] = True
        for start in range(0, sizes.denoising, max(1, size)):
            hidden[start : start + size, start : start + size] = False
        return hidden
