"""Mutants of the boxes of denoising queries (CDN-14 to CDN-24)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.mutants.denoising import Boxes, DenoisingByHand, Sizes
from detr_conformance.mutants.registry import mutant

# -- how far --------------------------------------------------------------------------------------------------


@mutant(
    "denoising-positives-twice-as-far",
    rejects="CDN-14",
    operation="contrastive_denoising",
    origin="rand * 2 for positives",
)
class PositivesTwiceAsFar(DenoisingByHand):
    """Moves positives by up to two half sides."""

    def lengths(self, boxes: Boxes) -> Boxes:
        return torch.cat((2 * self.uniform(boxes)[:, :1], super().lengths(boxes)[:, 1:]), 1)


@mutant(
    "denoising-full-sides",
    rejects="CDN-14",
    operation="contrastive_denoising",
    origin="diff = known_bboxs[:, 2:] without the division by 2",
)
class FullSides(DenoisingByHand):
    """Takes the side for half of it."""

    def unit(self, boxes: Boxes) -> Boxes:
        return boxes[..., [2, 3, 2, 3]]


@mutant(
    "denoising-sides-exchanged",
    rejects="CDN-14",
    operation="contrastive_denoising",
    origin="(h, w) taken from a shape",
)
class SidesExchanged(DenoisingByHand):
    """Moves x by the height and y by the width."""

    def unit(self, boxes: Boxes) -> Boxes:
        return boxes[..., [3, 2, 3, 2]] * 0.5


@mutant(
    "denoising-sides-by-pairs",
    rejects="CDN-14",
    operation="contrastive_denoising",
    origin="repeat_interleave(2) in place of repeat(2): (w, w, h, h)",
)
class SidesByPairs(DenoisingByHand):
    """Moves the first corner by the width, the second by the height."""

    def unit(self, boxes: Boxes) -> Boxes:
        return boxes[..., [2, 2, 3, 3]] * 0.5


@mutant(
    "denoising-centre-and-size",
    rejects="CDN-14",
    operation="contrastive_denoising",
    origin="DN-DETR: centre moved by half sides, size scaled",
)
class CentreAndSize(DenoisingByHand):
    """Adds the noise to centre and size, not to corners."""

    def noised(self, boxes: Boxes, scale: float, sizes: Sizes) -> Boxes:
        size = boxes[..., 2:]
        return (boxes + self.moves(boxes) * torch.cat((size / 2, size), -1) * scale).clamp(0, 1)


@mutant(
    "denoising-negatives-near",
    rejects="CDN-15",
    operation="contrastive_denoising",
    origin="the + 1 of negatives left out",
)
class NegativesNear(DenoisingByHand):
    """Moves negatives as far as positives."""

    def kind(self, boxes: Boxes) -> Float[Tensor, "2 1 1"]:
        return torch.zeros(2, 1, 1, dtype=boxes.dtype)


@mutant(
    "denoising-negatives-anywhere",
    rejects="CDN-15",
    operation="contrastive_denoising",
    origin="rand * 2 for negatives",
)
class NegativesAnywhere(DenoisingByHand):
    """Moves negatives by zero to two half sides."""

    def lengths(self, boxes: Boxes) -> Boxes:
        return self.uniform(boxes) * (1 + self.kind(boxes))


@mutant(
    "denoising-negatives-past-the-scale",
    rejects="CDN-15",
    operation="contrastive_denoising",
    origin="1 + rand * scale, the paper's lambda_1 taken for 1",
)
class NegativesPastTheScale(DenoisingByHand):
    """Does not scale the first half side of a negative's move."""

    def noised(self, boxes: Boxes, scale: float, sizes: Sizes) -> Boxes:
        self.scaled = scale
        return super().noised(boxes, scale, sizes)

    def lengths(self, boxes: Boxes) -> Boxes:
        return self.uniform(boxes) + self.kind(boxes) / max(self.scaled, 1e-9)


# -- which way, and how often ---------------------------------------------------------------------------------


@mutant(
    "denoising-one-sign-for-a-box",
    rejects="CDN-16",
    operation="contrastive_denoising",
    origin="rand_sign of shape (n, 1)",
)
class OneSignForABox(DenoisingByHand):
    """Moves all coordinates of a box up, or all down."""

    def signs(self, boxes: Boxes) -> Boxes:
        return super().signs(boxes[..., :1]).expand_as(boxes)


@mutant(
    "denoising-one-sign-for-an-axis",
    rejects="CDN-16",
    operation="contrastive_denoising",
    origin="rand_sign of shape (n, 2), repeated: boxes are shifted",
)
class OneSignForAnAxis(DenoisingByHand):
    """Moves both corners the same way."""

    def signs(self, boxes: Boxes) -> Boxes:
        return super().signs(boxes[..., :2]).repeat(1, 1, 1, 2)


@mutant(
    "denoising-always-up",
    rejects="CDN-16",
    operation="contrastive_denoising",
    origin="rand_sign = randint(0, 2), without * 2 - 1 and taken for nonzero",
)
class AlwaysUp(DenoisingByHand):
    """Moves every coordinate up."""

    def signs(self, boxes: Boxes) -> Boxes:
        return torch.ones_like(boxes)


@mutant(
    "denoising-normal-noise",
    rejects="CDN-17",
    operation="contrastive_denoising",
    origin="randn, clipped",
)
class NormalNoise(DenoisingByHand):
    """Draws moves from a clipped normal distribution."""

    def uniform(self, boxes: Boxes) -> Boxes:
        return (torch.randn_like(boxes).abs() / 3).clamp(max=1)


@mutant(
    "denoising-noise-by-area",
    rejects="CDN-17",
    operation="contrastive_denoising",
    origin="sqrt(rand), which is uniform over a disc",
)
class NoiseByArea(DenoisingByHand):
    """Draws the square root of a uniform number."""

    def uniform(self, boxes: Boxes) -> Boxes:
        return super().uniform(boxes).sqrt()


@mutant(
    "denoising-one-number-for-a-box",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="rand_part of shape (n, 1)",
)
class OneNumberForABox(DenoisingByHand):
    """Moves all coordinates of a box equally far."""

    def uniform(self, boxes: Boxes) -> Boxes:
        return super().uniform(boxes[..., :1]).expand_as(boxes)


@mutant(
    "denoising-boxes-once-for-all-groups",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="boxes noised before they are repeated",
)
class BoxesOnceForAllGroups(DenoisingByHand):
    """Noises one group and repeats it."""

    def noised(self, boxes: Boxes, scale: float, sizes: Sizes) -> Boxes:
        return super().noised(boxes[:1], scale, sizes).expand_as(boxes)


@mutant(
    "denoising-negatives-behind-positives",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="rand_part + 1 of the positives",
)
class NegativesBehindPositives(DenoisingByHand):
    """Moves a negative as its positive, and a half side further."""

    def moves(self, boxes: Boxes) -> Boxes:
        positive = boxes[:, :1]
        return self.signs(positive) * (self.uniform(positive) + self.kind(boxes))


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
