"""Mutants of the layout of denoising queries (CDN-1 to CDN-8)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import Boxes, DenoisingByHand, Labels, Sizes

# -- form and number ------------------------------------------------------------------------------------------


@mutant(
    "denoising-additive-mask",
    rejects="CDN-1",
    operation="contrastive_denoising",
    origin="transformers, rt_detr: a mask of 0 and -inf",
)
class AdditiveMask(DenoisingByHand):
    """Returns a floating mask, to be added to scores."""

    def mask(self, sizes: Sizes) -> Tensor:
        return torch.zeros(()).masked_fill(super().mask(sizes), -torch.inf)


@mutant(
    "denoising-always-float32",
    rejects="CDN-1",
    operation="contrastive_denoising",
    origin="detrex and DINO: torch.zeros(pad_size, 4) without a dtype",
)
class AlwaysFloat32(DenoisingByHand):
    """Makes the queries in float32, whatever the dtype of boxes and embedding."""

    def blank(self, label_embedding: Tensor, sizes: Sizes) -> Float[Tensor, "batch query embed"]:
        return super().blank(label_embedding.float(), sizes)

    def blank_references(self, boxes: Tensor, sizes: Sizes) -> Float[Tensor, "batch query 4"]:
        return super().blank_references(boxes.float(), sizes)


@mutant(
    "denoising-groups-of-few",
    rejects="CDN-2",
    operation="contrastive_denoising",
    origin="DINO: the number is divided from 50 on only, and below it is twice the groups",
)
class GroupsOfFew(DenoisingByHand):
    """Takes a small denoising_number for the number of groups, and doubles it."""

    def groups(self, counts: list[int], number: int) -> int:
        return super().groups(counts, number) if number >= 50 or not max(counts) else 2 * number


@mutant(
    "denoising-groups-rounded-up", rejects="CDN-2", operation="contrastive_denoising", origin="-(-number // largest)"
)
class GroupsRoundedUp(DenoisingByHand):
    """Rounds the number of groups up."""

    def groups(self, counts: list[int], number: int) -> int:
        return -(-number // max(1, *counts))


# -- which query is where -------------------------------------------------------------------------------------


@mutant(
    "denoising-kinds-alternate",
    rejects="CDN-3",
    operation="contrastive_denoising",
    origin="stack((positive, negative), -1).flatten()",
)
class KindsAlternate(DenoisingByHand):
    """Puts the negative of each box behind its positive."""

    def slots(self, box: Int[Tensor, " box"], sizes: Sizes) -> Labels:
        group, kind = torch.arange(sizes.groups).view(-1, 1, 1), torch.arange(2).view(2, 1)
        return group * 2 * sizes.largest + 2 * box + kind


@mutant(
    "denoising-negatives-first",
    rejects="CDN-3",
    operation="contrastive_denoising",
    origin="the halves of a group exchanged",
)
class NegativesFirst(DenoisingByHand):
    """Puts the negatives of a group before its positives."""

    def copy(self, sizes: Sizes) -> Int[Tensor, "group kind 1"]:
        return super().copy(sizes).flip(1)


@mutant(
    "denoising-all-positives-first",
    rejects="CDN-3",
    operation="contrastive_denoising",
    origin="cat((positives, negatives)) of all groups",
)
class AllPositivesFirst(DenoisingByHand):
    """Has the positives of all groups first, then all negatives."""

    def copy(self, sizes: Sizes) -> Int[Tensor, "group kind 1"]:
        return torch.arange(2 * sizes.groups).view(2, sizes.groups, 1).transpose(0, 1)


@mutant(
    "denoising-groups-innermost",
    rejects="CDN-4",
    operation="contrastive_denoising",
    origin="repeat_interleave in place of repeat",
)
class GroupsInnermost(DenoisingByHand):
    """Has all copies of a box beside each other."""

    def slots(self, box: Int[Tensor, " box"], sizes: Sizes) -> Labels:
        return self.copy(sizes) + 2 * sizes.groups * box


@mutant(
    "denoising-equal-counts",
    rejects="CDN-4",
    operation="contrastive_denoising",
    origin="image = index // largest, right while all images have as many boxes",
)
class EqualCounts(DenoisingByHand):
    """Deals the boxes out to the images as if each had the largest number."""

    def places(self, counts: list[int]) -> tuple[Tensor, Tensor]:
        index = torch.arange(sum(counts))
        return index // max(1, *counts), index % max(1, *counts)


@mutant(
    "denoising-packed-at-the-end",
    rejects="CDN-4",
    operation="contrastive_denoising",
    origin="padding on the left, as for text that is generated",
)
class PackedAtTheEnd(DenoisingByHand):
    """Leaves the first slots of a copy empty, not the last."""

    def places(self, counts: list[int]) -> tuple[Tensor, Tensor]:
        image, box = super().places(counts)
        return image, box + max(counts) - torch.tensor(counts, dtype=torch.int64)[image]


@mutant(
    "denoising-boxes-reversed",
    rejects="CDN-4",
    operation="contrastive_denoising",
    origin="boxes sorted by size, labels not",
)
class BoxesReversed(DenoisingByHand):
    """Gives each label the box of another one in the batch."""

    def noised(self, boxes: Boxes, scale: float, sizes: Sizes) -> Boxes:
        return super().noised(boxes.flip(2), scale, sizes)


@mutant(
    "denoising-empty-at-the-corner",
    rejects="CDN-5",
    operation="contrastive_denoising",
    origin="transformers, rt_detr: zero boxes are padded in, and their logits taken with the others'",
)
class EmptyAtTheCorner(DenoisingByHand):
    """Gives empty slots the logit of the box (0, 0, 0, 0)."""

    def blank_references(self, boxes: Tensor, sizes: Sizes) -> Float[Tensor, "batch query 4"]:
        return super().blank_references(boxes, sizes) + self.references(torch.zeros(1, 1, 1, 4), 1.0)[0, 0]


@mutant(
    "denoising-empty-of-class-zero",
    rejects="CDN-5",
    operation="contrastive_denoising",
    origin="labels padded with 0, and embedded with the others",
)
class EmptyOfClassZero(DenoisingByHand):
    """Gives empty slots the content of the first class."""

    def blank(self, label_embedding: Tensor, sizes: Sizes) -> Float[Tensor, "batch query embed"]:
        return super().blank(label_embedding, sizes) + label_embedding[0]


@mutant(
    "denoising-empty-images-skipped",
    rejects="CDN-6",
    operation="contrastive_denoising",
    origin="enumerate(targets that are not empty)",
)
class EmptyImagesSkipped(DenoisingByHand):
    """Numbers the images that have boxes."""

    def places(self, counts: list[int]) -> tuple[Tensor, Tensor]:
        return super().places([count for count in counts if count])


@mutant(
    "denoising-empty-images-refused",
    rejects="CDN-6",
    operation="contrastive_denoising",
    origin="the smallest count as divisor of a batch-wide reshape",
)
class EmptyImagesRefused(DenoisingByHand):
    """Divides by the number of boxes of each image."""

    def groups(self, counts: list[int], number: int) -> int:
        if max(counts) > 0:
            most = min(number // count for count in counts)
            return max(1, most)
        return 1


@mutant(
    "denoising-nothing-divides",
    rejects="CDN-7",
    operation="contrastive_denoising",
    origin="denoising_number // max(counts), on a batch without boxes",
)
class NothingDivides(DenoisingByHand):
    """Fails where no image has a box."""

    def groups(self, counts: list[int], number: int) -> int:
        return max(1, number // max(counts))


@mutant(
    "denoising-one-slot-of-nothing",
    rejects="CDN-7",
    operation="contrastive_denoising",
    origin="max(1, largest) against a division by zero, kept for the layout",
)
class OneSlotOfNothing(DenoisingByHand):
    """Has one slot of each kind and group where no image has a box."""

    def largest(self, counts: list[int]) -> int:
        return max(1, *counts)


@mutant(
    "denoising-no-group-of-many",
    rejects="CDN-8",
    operation="contrastive_denoising",
    origin="denoising_number // largest without the max",
)
class NoGroupOfMany(DenoisingByHand):
    """Makes no queries at all where an image has more boxes than denoising_number."""

    def groups(self, counts: list[int], number: int) -> int:
        return number // max(1, *counts)


@mutant(
    "denoising-cut-to-the-queries",
    rejects="CDN-8",
    operation="contrastive_denoising",
    origin="matching takes min(Q, n) boxes, and denoising does not",
)
class CutToTheQueries(DenoisingByHand):
    """Takes no more boxes of an image than there are matching queries."""

    def __call__(
        self, target_labels: Tensor, target_boxes: Tensor, target_counts: Tensor, *rest: Any, **settings: Any
    ) -> dict[str, Tensor]:
        counts, most = target_counts.tolist(), max(1, settings["num_queries"])
        self.check(target_labels, target_boxes, counts, len(rest[0]))
        kept = self.places(counts)[1] < most
        return super().__call__(
            target_labels[kept], target_boxes[kept], target_counts.clamp(max=most), *rest, **settings
        )


@mutant(
    "denoising-nothing-in-float32",
    rejects="CDN-1",
    operation="contrastive_denoising",
    origin="an early return of torch.zeros(batch, 0, embed)",
)
class NothingInFloat32(DenoisingByHand):
    """Returns queries in the default dtype where there are none."""

    def __call__(self, *arguments: Any, **settings: Any) -> dict[str, Tensor]:
        result = super().__call__(*arguments, **settings)
        empty = not len(arguments[0])
        return {name: t.float() if empty and t.is_floating_point() else t for name, t in result.items()}
