"""Mutants of who sees whom (CDN-25 to CDN-27)."""

from __future__ import annotations

import torch

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import DenoisingByHand, Mask, Sizes


@mutant(
    "denoising-groups-see-each-other",
    rejects="CDN-25",
    operation="contrastive_denoising",
    origin="only the matching queries are kept from the denoising ones",
)
class GroupsSeeEachOther(DenoisingByHand):
    """Hides nothing among denoising queries."""

    def mask(self, sizes: Sizes) -> Mask:
        hidden = super().mask(sizes)
        hidden[: sizes.denoising] = False
        return hidden


@mutant(
    "denoising-groups-see-earlier-ones",
    rejects="CDN-25",
    operation="contrastive_denoising",
    origin="the two cases of the published loop, the one for the last group left out",
)
class GroupsSeeEarlierOnes(DenoisingByHand):
    """Hides later groups only."""

    def mask(self, sizes: Sizes) -> Mask:
        hidden = super().mask(sizes)
        hidden[: sizes.denoising] &= torch.ones_like(hidden[: sizes.denoising]).triu()
        return hidden


@mutant(
    "denoising-matching-sees-denoising",
    rejects="CDN-26",
    operation="contrastive_denoising",
    origin="the mask of the groups alone",
)
class MatchingSeesDenoising(DenoisingByHand):
    """Lets matching queries attend to denoising ones."""

    def mask(self, sizes: Sizes) -> Mask:
        hidden = super().mask(sizes)
        hidden[sizes.denoising :] = False
        return hidden


@mutant(
    "denoising-mask-transposed",
    rejects="CDN-26",
    operation="contrastive_denoising",
    origin="rows taken for keys",
)
class MaskTransposed(DenoisingByHand):
    """Hides the matching queries from the denoising ones, and not the other way."""

    def mask(self, sizes: Sizes) -> Mask:
        return super().mask(sizes).T.contiguous()


@mutant(
    "denoising-does-not-see-matching",
    rejects="CDN-27",
    operation="contrastive_denoising",
    origin="two blocks that are kept from each other",
)
class DoesNotSeeMatching(DenoisingByHand):
    """Hides the matching queries from the denoising ones too."""

    def mask(self, sizes: Sizes) -> Mask:
        hidden = super().mask(sizes)
        hidden[: sizes.denoising, sizes.denoising :] = True
        return hidden


@mutant(
    "denoising-kinds-do-not-see-each-other",
    rejects="CDN-27",
    operation="contrastive_denoising",
    origin="DN-DETR's group size, which has no negatives",
)
class KindsDoNotSeeEachOther(DenoisingByHand):
    """Takes the positives and the negatives of a group for two groups."""

    def mask(self, sizes: Sizes) -> Mask:
        hidden = super().mask(sizes)
        kind = torch.arange(sizes.denoising) // max(1, sizes.largest)
        hidden[: sizes.denoising, : sizes.denoising] |= kind[:, None] != kind
        return hidden


@mutant(
    "denoising-empty-slots-hidden",
    rejects="CDN-27",
    operation="contrastive_denoising",
    origin="slots hidden that are empty in the first image, one mask being for all",
)
class EmptySlotsHidden(DenoisingByHand):
    """Hides slots by the first image's number of boxes."""

    def mask(self, sizes: Sizes) -> Mask:
        hidden = super().mask(sizes)
        empty = torch.arange(sizes.denoising) % max(1, sizes.largest) >= sizes.counts[0]
        hidden[: sizes.denoising, : sizes.denoising] |= empty
        hidden.fill_diagonal_(False)
        return hidden
