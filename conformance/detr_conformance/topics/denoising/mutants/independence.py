"""Mutants of which every number alone is right, and some are made of others (CDN-10, 12, 16 to 18, 30)."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.denoising.mutants.contrastive_denoising import Boxes, DenoisingByHand, Labels, Sizes


@mutant(
    "denoising-fourth-sign-of-three",
    rejects="CDN-16",
    operation="contrastive_denoising",
    origin="two bits and their parity, drawn by one integer in [0, 8)",
)
class FourthSignOfThree(DenoisingByHand):
    """Makes the sign of the fourth coordinate the product of the other three."""

    def signs(self, boxes: Boxes) -> Boxes:
        signs = super().signs(boxes)
        return torch.cat((signs[..., :3], signs[..., :3].prod(-1, keepdim=True)), -1)


@mutant(
    "denoising-negatives-parity",
    rejects="CDN-16",
    operation="contrastive_denoising",
    origin="eight signs unpacked from seven random bits",
)
class NegativesParity(DenoisingByHand):
    """Makes the last sign of a negative the product of all other signs of the pair."""

    def signs(self, boxes: Boxes) -> Boxes:
        signs = super().signs(boxes)
        signs[:, 1, :, 3] = signs[:, 0].prod(-1) * signs[:, 1, :, :3].prod(-1)
        return signs


@mutant(
    "denoising-groups-in-opposite-pairs",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="antithetic variates, which halve the variance of a mean",
)
class OppositePairs(DenoisingByHand):
    """Moves the boxes of the later half of the groups the opposite way, in turned order."""

    def moves(self, boxes: Boxes) -> Boxes:
        moves = super().moves(boxes)
        half = len(moves) // 2
        return torch.cat((moves[: len(moves) - half], -moves[:half].flip(0))) if half else moves


@mutant(
    "denoising-noise-from-a-table",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="a table of random numbers, read round and round",
)
class FromATable(DenoisingByHand):
    """Draws 5000 numbers a call and repeats them."""

    def uniform(self, boxes: Boxes) -> Boxes:
        return torch.rand(5000, dtype=boxes.dtype).repeat(boxes.numel() // 5000 + 1)[: boxes.numel()].view_as(boxes)


@mutant(
    "denoising-lengths-folded",
    rejects="CDN-18",
    operation="contrastive_denoising",
    origin="a chaotic map in place of a generator: the next number is |2 r - 1|",
)
class LengthsFolded(DenoisingByHand):
    """Makes the lengths of each odd group from those of the group before, uncorrelated with them."""

    def uniform(self, boxes: Boxes) -> Boxes:
        drawn = super().uniform(boxes)
        even = drawn[: len(drawn) // 2 * 2 : 2]
        drawn[1::2] = (2 * even - 1).abs()
        return drawn


@mutant(
    "denoising-labels-of-half-the-slots",
    rejects="CDN-12",
    operation="contrastive_denoising",
    origin="noise for a table of 16 slots, and again for the next 16",
)
class LabelsOfHalfTheSlots(DenoisingByHand):
    """Chooses the same labels in slot j and in slot j + 16."""

    def chosen(self, shape: torch.Size, ratio: float) -> Bool[Tensor, "group kind box"]:
        boxes = torch.arange(shape[-1])
        return super().chosen(shape, ratio)[..., boxes // 32 * 32 + boxes % 16]


@mutant(
    "denoising-rate-of-a-quarter-less",
    rejects="CDN-10",
    operation="contrastive_denoising",
    origin="a threshold of 6 bits: 15 / 64 for 1 / 4",
)
class RateOfSixBits(DenoisingByHand):
    """Draws labels with the next smaller of 64 probabilities."""

    def probability(self, ratio: float) -> float:
        return max(0.0, super().probability(ratio) - 1 / 64)


@mutant(
    "denoising-labels-kept-in-late-groups",
    rejects="CDN-12",
    operation="contrastive_denoising",
    origin="a ring of 256 groups",
)
class RingOfGroups(DenoisingByHand):
    """Repeats the labels of group g in group g + 256."""

    def labels(self, labels: Labels, ratio: float, sizes: Sizes) -> Labels:
        found = super().labels(labels, ratio, sizes)
        return found[torch.arange(len(found)) % 256]


@mutant(
    "denoising-calls-in-opposite-pairs",
    rejects="CDN-30",
    operation="contrastive_denoising",
    origin="antithetic variates of two steps",
)
class OppositeCalls(DenoisingByHand):
    """Takes 1 - r of the call before in every other call of the same shape."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def uniform(self, boxes: Boxes) -> Boxes:
        if self.last is not None and self.last.shape == boxes.shape:
            drawn, self.last = 1 - self.last, None
            return drawn.to(boxes.dtype)
        self.last = super().uniform(boxes)
        return self.last
