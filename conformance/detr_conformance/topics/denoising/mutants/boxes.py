"""Mutants of how far, which way and how often boxes move (CDN-14 to CDN-18)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import Boxes, DenoisingByHand, Sizes

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


@mutant(
    "denoising-last-group-repeated",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="a table of noise that is one group short, indexed with min(group, last)",
)
class LastGroupRepeated(DenoisingByHand):
    """Gives the last group the noise of the one before."""

    def moves(self, boxes: Boxes) -> Boxes:
        moves = super().moves(boxes)
        return torch.cat((moves[:-1], moves[-2:-1])) if len(moves) > 1 else moves


@mutant(
    "denoising-first-positives-true",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="a clean copy first, noised ones after it",
)
class FirstPositivesTrue(DenoisingByHand):
    """Leaves the positives of the first of several groups where they are."""

    def moves(self, boxes: Boxes) -> Boxes:
        moves = super().moves(boxes)
        moves[: len(moves) - 1][:1, 0] = 0
        return moves


@mutant(
    "denoising-scale-up-to-one",
    rejects="CDN-17",
    operation="contrastive_denoising",
    origin="box_noise_scale clamped to [0, 1], as if it were a probability",
)
class ScaleUpToOne(DenoisingByHand):
    """Takes larger scales for 1."""

    def scale(self, box_noise_scale: float) -> float:
        return min(1.0, box_noise_scale)


@mutant(
    "denoising-least-side",
    rejects="CDN-14",
    operation="contrastive_denoising",
    origin="a least size of boxes, so that small ones get noise at all",
)
class LeastSide(DenoisingByHand):
    """Moves corners of small boxes as if they were a twentieth of the image."""

    def unit(self, boxes: Boxes) -> Boxes:
        return super().unit(boxes).clamp(min=0.025)
