"""Mutants of how noised corners become references (CDN-19 to CDN-24)."""

from __future__ import annotations

import torch

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import Boxes, DenoisingByHand, Sizes

# -- clamping -------------------------------------------------------------------------------------------------


@mutant(
    "denoising-not-clamped",
    rejects="CDN-19",
    operation="contrastive_denoising",
    origin="the logit clamps anyway, though centre and size",
)
class NotClamped(DenoisingByHand):
    """Lets corners leave the image; the logit then clamps centre and size."""

    def moved(self, corners: Boxes, by: Boxes) -> Boxes:
        return corners + by


@mutant(
    "denoising-shifted-into-the-image",
    rejects="CDN-19",
    operation="contrastive_denoising",
    origin="the box pushed back, its size kept",
)
class ShiftedIntoTheImage(DenoisingByHand):
    """Shifts a box that leaves the image back into it."""

    def moved(self, corners: Boxes, by: Boxes) -> Boxes:
        moved = corners + by
        beyond = moved.clamp(max=0) + (moved - 1).clamp(min=0)
        return (moved - (beyond[..., :2] + beyond[..., 2:]).repeat(1, 1, 1, 2)).clamp(0, 1)


@mutant(
    "denoising-reflected",
    rejects="CDN-19",
    operation="contrastive_denoising",
    origin="abs() against negative coordinates",
)
class Reflected(DenoisingByHand):
    """Reflects corners at the border of the image."""

    def moved(self, corners: Boxes, by: Boxes) -> Boxes:
        moved = (corners + by).abs()
        return (1 - (1 - moved).abs()).clamp(0, 1)


@mutant(
    "denoising-corners-sorted",
    rejects="CDN-20",
    operation="contrastive_denoising",
    origin="min and max of the corners, so that every box is one",
)
class CornersSorted(DenoisingByHand):
    """Puts corners that have changed places into their order."""

    def back(self, corners: Boxes) -> Boxes:
        low, high = corners[..., :2], corners[..., 2:]
        return super().back(torch.cat((torch.minimum(low, high), torch.maximum(low, high)), -1))


@mutant(
    "denoising-corners-meet",
    rejects="CDN-20",
    operation="contrastive_denoising",
    origin="high = max(low, high): crossed corners collapse onto the first one",
)
class CornersMeet(DenoisingByHand):
    """Puts the second corner onto the first where it would lie before it."""

    def back(self, corners: Boxes) -> Boxes:
        low, high = corners[..., :2], corners[..., 2:]
        return super().back(torch.cat((low, torch.maximum(low, high)), -1))


# -- logits ---------------------------------------------------------------------------------------------------


@mutant(
    "denoising-boxes-for-logits",
    rejects="CDN-21",
    operation="contrastive_denoising",
    origin="the inverse sigmoid left out",
)
class BoxesForLogits(DenoisingByHand):
    """Returns boxes."""

    def references(self, boxes: Boxes, scale: float) -> Boxes:
        return boxes


@mutant(
    "denoising-other-eps",
    rejects="CDN-21",
    operation="contrastive_denoising",
    origin="Deformable DETR's and transformers' 1e-5, undeclared",
)
class OtherEps(DenoisingByHand):
    """Takes logits with an epsilon of 1e-5."""

    def references(self, boxes: Boxes, scale: float) -> Boxes:
        return boxes.clamp(min=1e-5).log() - (1 - boxes).clamp(min=1e-5).log()


@mutant(
    "denoising-corner-logits",
    rejects="CDN-21",
    operation="contrastive_denoising",
    origin="the conversion back left out",
)
class CornerLogits(DenoisingByHand):
    """Returns logits of corners."""

    def back(self, corners: Boxes) -> Boxes:
        return corners


@mutant(
    "denoising-logit-with-the-noise",
    rejects="CDN-22",
    operation="contrastive_denoising",
    origin="transformers, rt_detr: the inverse sigmoid stands under `if box_noise_scale > 0`",
)
class LogitWithTheNoise(DenoisingByHand):
    """Returns boxes where there is no noise."""

    def references(self, boxes: Boxes, scale: float) -> Boxes:
        return super().references(boxes, scale) if scale > 0 else boxes


@mutant(
    "denoising-scale-by-default",
    rejects="CDN-22",
    operation="contrastive_denoising",
    origin="box_noise_scale or 1.0",
)
class ScaleByDefault(DenoisingByHand):
    """Takes a scale of 0 for none given."""

    def scale(self, box_noise_scale: float) -> float:
        return box_noise_scale or 1.0


@mutant(
    "denoising-plain-logit",
    rejects="CDN-23",
    operation="contrastive_denoising",
    origin="torch.logit without eps",
)
class PlainLogit(DenoisingByHand):
    """Has infinite logits on the border, and NaN beyond."""

    def references(self, boxes: Boxes, scale: float) -> Boxes:
        return torch.logit(boxes)


@mutant(
    "denoising-relative-size",
    rejects="CDN-23",
    operation="contrastive_denoising",
    origin="noise as a share of the size: log(noised / size)",
)
class RelativeSize(DenoisingByHand):
    """Computes the noised size by a factor, which a size of 0 has not."""

    def noised(self, boxes: Boxes, scale: float, sizes: Sizes) -> Boxes:
        noised, size = super().noised(boxes, scale, sizes), boxes[..., 2:]
        return torch.cat((noised[..., :2], size * (noised[..., 2:] / size)), -1)


@mutant(
    "denoising-in-half",
    rejects="CDN-24",
    operation="contrastive_denoising",
    origin="boxes in the dtype of the model",
)
class InHalf(DenoisingByHand):
    """Computes corners and logits in the dtype of the boxes."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@mutant(
    "denoising-sides-in-half",
    rejects="CDN-24",
    operation="contrastive_denoising",
    origin="corners stored in half between noise and conversion",
)
class SidesInHalf(DenoisingByHand):
    """Rounds noised corners to the dtype of the boxes: small sides are differences of large numbers."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        self.stored = dtype
        return super().wide(dtype)

    def moved(self, corners: Boxes, by: Boxes) -> Boxes:
        return super().moved(corners, by).to(self.stored).to(corners.dtype)
