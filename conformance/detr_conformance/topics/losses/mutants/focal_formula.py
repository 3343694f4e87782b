"""Mutants of the focal loss: its formula (FOC-1 to FOC-5)."""

from __future__ import annotations

import torch

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.focal_loss import FocalByHand, Logits, Scalar, Targets


@mutant("focal-softmax", rejects="FOC-1", operation="sigmoid_focal_loss", origin="softmax over the classes")
class Softmax(FocalByHand):
    """Lets the classes of a token compete: the logit of each is taken against those of the others."""

    def against(self, x: Logits, positive: Targets) -> Logits:
        others = torch.stack(
            [torch.cat((x[..., :i], x[..., i + 1 :]), -1).logsumexp(-1) for i in range(x.shape[-1])], -1
        )
        return super().against(x - others if x.shape[-1] > 1 else x, positive)


@mutant("focal-positives-only", rejects="FOC-1", operation="sigmoid_focal_loss", origin="background left out")
class PositivesOnly(FocalByHand):
    """Leaves tokens without any class out, the background of a detector."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return super().reduced(loss * positive.any(-1, keepdim=True), positive, num_boxes)


@mutant("focal-true-class-only", rejects="FOC-1", operation="sigmoid_focal_loss", origin="gather of the target class")
class TrueClassOnly(FocalByHand):
    """Leaves the other classes of a token with a class out."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        counted = positive | ~positive.any(-1, keepdim=True)
        return super().reduced(loss * counted, positive, num_boxes)


@mutant("focal-whole-blocks", rejects="FOC-1", operation="sigmoid_focal_loss", origin="a kernel's grid, rounded down")
class WholeBlocks(FocalByHand):
    """Sums whole blocks of 1024 elements where there is more than one."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss.flatten()[: max(1024, loss.numel() // 1024 * 1024)].sum() / num_boxes


@mutant("focal-alpha-swapped", rejects="FOC-2", operation="sigmoid_focal_loss", origin="alpha of the negatives")
class AlphaSwapped(FocalByHand):
    """Weighs the negatives with alpha."""

    def weighted(self, loss: Logits, positive: Targets, alpha: float) -> Logits:
        return super().weighted(loss, ~positive, alpha)


@mutant("focal-alpha-of-positives", rejects="FOC-2", operation="sigmoid_focal_loss", origin="pos_weight of torch's BCE")
class AlphaOfPositives(FocalByHand):
    """Weighs the positives and leaves the negatives as they are."""

    def weighted(self, loss: Logits, positive: Targets, alpha: float) -> Logits:
        return torch.where(positive, alpha * loss, loss)


@mutant("focal-alpha-zero-is-none", rejects="FOC-2", operation="sigmoid_focal_loss", origin="`if alpha:`")
class AlphaZeroIsNone(FocalByHand):
    """Does not weigh at all if alpha is 0."""

    def weighted(self, loss: Logits, positive: Targets, alpha: float) -> Logits:
        return super().weighted(loss, positive, alpha) if alpha else loss


@mutant("focal-alpha-fixed", rejects="FOC-2", operation="sigmoid_focal_loss", origin="0.25 written out")
class AlphaFixed(FocalByHand):
    """Takes 0.25 whatever the setting says."""

    def weighted(self, loss: Logits, positive: Targets, alpha: float) -> Logits:
        return super().weighted(loss, positive, 0.25)


@mutant("focal-gamma-missing", rejects="FOC-3", operation="sigmoid_focal_loss", origin="weighted cross-entropy")
class GammaMissing(FocalByHand):
    """Has no modulating factor."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return torch.ones_like(x)


@mutant("focal-easy-examples", rejects="FOC-3", operation="sigmoid_focal_loss", origin="p_t^gamma for (1 - p_t)^gamma")
class EasyExamples(FocalByHand):
    """Gives weight to what is right already."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return super().factor(x, ~positive, gamma)


@mutant("focal-factor-of-positives", rejects="FOC-3", operation="sigmoid_focal_loss", origin="(1 - p)^gamma for both")
class FactorOfPositives(FocalByHand):
    """Takes the probability of the class for that of the right answer, also of negatives."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return super().factor(x, torch.ones_like(positive), gamma)


@mutant("focal-always-square", rejects="FOC-3", operation="sigmoid_focal_loss", origin="(1 - p_t) * (1 - p_t)")
class AlwaysSquare(FocalByHand):
    """Squares whatever gamma is."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return super().factor(x, positive, 2.0)


@mutant("focal-whole-exponents", rejects="FOC-3", operation="sigmoid_focal_loss", origin="gamma: int")
class WholeExponents(FocalByHand):
    """Cuts gamma off to a whole number."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return super().factor(x, positive, int(gamma))


@mutant("focal-mean-over-elements", rejects="FOC-4", operation="sigmoid_focal_loss", origin="reduction='mean'")
class MeanOverElements(FocalByHand):
    """Divides by the number of elements instead."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss.sum() / max(1, loss.numel())


@mutant(
    "focal-mean-over-queries",
    rejects="FOC-4",
    operation="sigmoid_focal_loss",
    origin="Deformable DETR: mean(1).sum() / num_boxes, without the factor outside",
)
class MeanOverQueries(FocalByHand):
    """Also divides by the number of queries."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return super().reduced(loss, positive, num_boxes) / (max(1, loss.shape[1]) if loss.ndim == 3 else 1)


@mutant("focal-counts-positives", rejects="FOC-4", operation="sigmoid_focal_loss", origin="RetinaNet: num_pos")
class CountsPositives(FocalByHand):
    """Divides by the positives that it sees itself, which knows nothing of other ranks and groups."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss.sum() / positive.sum().clamp(min=1)


@mutant("focal-at-least-one-box", rejects="FOC-4", operation="sigmoid_focal_loss", origin="max(num_boxes, 1) once more")
class AtLeastOneBox(FocalByHand):
    """Takes a normaliser below 1 for 1, though on many ranks the average of boxes can be."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return super().reduced(loss, positive, num_boxes.clamp(min=1))


@mutant("focal-whole-boxes", rejects="FOC-4", operation="sigmoid_focal_loss", origin="int(num_boxes)")
class WholeBoxes(FocalByHand):
    """Rounds the normaliser to a whole number above 0."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return super().reduced(loss, positive, torch.where(num_boxes > 1, num_boxes.floor(), num_boxes))


@mutant("focal-three-axes", rejects="FOC-5", operation="sigmoid_focal_loss", origin="mean(1) * shape[1] of (B, Q, K)")
class ThreeAxes(FocalByHand):
    """Averages over axis 1 and multiplies by its length."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss.mean(1).sum() / num_boxes * loss.shape[1]


@mutant("focal-nothing-is-nan", rejects="FOC-5", operation="sigmoid_focal_loss", origin="mean() * numel()")
class NothingIsNan(FocalByHand):
    """Averages over nothing where there is no token."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss.mean() * loss.numel() / num_boxes
