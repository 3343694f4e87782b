"""Mutants of contrastive denoising that are right for few boxes, groups and classes (CDN-10, CDN-11, CDN-37)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import DenoisingByHand, Labels, Mask, Sizes


@mutant(
    "denoising-groups-of-eight-bits",
    rejects="CDN-37",
    operation="contrastive_denoising",
    origin="the group of each query kept as uint8",
)
class GroupsOfEightBits(DenoisingByHand):
    """Lets groups g and g + 256 see each other."""

    def mask(self, sizes: Sizes) -> Mask:
        hidden = super().mask(sizes)
        group = torch.arange(sizes.denoising) // max(1, 2 * sizes.largest) % 256
        hidden[: sizes.denoising, : sizes.denoising] &= group[:, None] != group
        return hidden


@mutant(
    "denoising-labels-of-a-table",
    rejects="CDN-37",
    operation="contrastive_denoising",
    origin="an embedding of 1024 rows, indexed with min(label, last)",
)
class LabelsOfATable(DenoisingByHand):
    """Gives all classes from the 1024th on the row of that one."""

    def rows(self, label_embedding: Tensor, labels: Labels) -> Float[Tensor, "group kind box embed"]:
        return super().rows(label_embedding, labels.clamp(max=1023))


@mutant(
    "denoising-drawn-labels-of-eight-bits",
    rejects="CDN-11",
    operation="contrastive_denoising",
    origin="random labels drawn as uint8, as COCO needs no more",
)
class DrawnLabelsOfEightBits(DenoisingByHand):
    """Draws one of the first 256 classes."""

    def drawn(self, labels: Int[Tensor, " chosen"], classes: int) -> Int[Tensor, " chosen"]:
        return torch.randint_like(labels, min(classes, 256))


@mutant(
    "denoising-images-of-a-table",
    rejects="CDN-37",
    operation="contrastive_denoising",
    origin="a kernel with a thread for each of 64 images",
)
class ImagesOfATable(DenoisingByHand):
    """Writes images from the sixty-fifth on over the first ones."""

    def places(self, counts: list[int]) -> tuple[Int[Tensor, " box"], Int[Tensor, " box"]]:
        image, box = super().places(counts)
        return image % 64, box


@mutant(
    "denoising-labels-of-late-slots",
    rejects="CDN-10",
    operation="contrastive_denoising",
    origin="noise drawn for the 256 slots of a table",
)
class LabelsOfLateSlots(DenoisingByHand):
    """Never draws the label of a box behind the 256th of its image."""

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        _, box = self.places(sizes.counts)
        late: Bool[Tensor, " box"] = box >= 256
        return torch.where(late, labels, super().labels(labels, ratio, sizes))
