"""Mutants of the focal loss (FOC-1 to FOC-11)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detr_conformance.mutants.focal import ClosedForm, FocalByHand, Logits, Scalar, Targets, WithClosedForm
from detr_conformance.mutants.registry import mutant


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


@mutant("focal-log-of-sigmoid", rejects="FOC-6", operation="sigmoid_focal_loss", origin="torch.log(logits.sigmoid())")
class LogOfSigmoid(FocalByHand):
    """Takes the logarithm of a probability that is 0 in float32."""

    def surprise(self, x: Logits, positive: Targets) -> Logits:
        return -(-self.against(x, positive)).sigmoid().log()


@mutant(
    "focal-least-probability", rejects="FOC-6", operation="sigmoid_focal_loss", origin="log(p + 1e-8), as in matching"
)
class LeastProbability(FocalByHand):
    """Adds 1e-8 to the probability: beyond a logit of 18 the loss grows no more."""

    def surprise(self, x: Logits, positive: Targets) -> Logits:
        return -((-self.against(x, positive)).sigmoid() + 1e-8).log()


@mutant("focal-clamped-log", rejects="FOC-6", operation="sigmoid_focal_loss", origin="torch's binary_cross_entropy")
class ClampedLog(FocalByHand):
    """Has no loss above 100."""

    def surprise(self, x: Logits, positive: Targets) -> Logits:
        return super().surprise(x, positive).clamp(max=100)


@mutant("focal-exp-overflows", rejects="FOC-6", operation="sigmoid_focal_loss", origin="log(1 + exp(x))")
class ExpOverflows(FocalByHand):
    """Overflows beyond a logit of 88 in float32, and of 709 in float64."""

    def surprise(self, x: Logits, positive: Targets) -> Logits:
        return self.against(x, positive).exp().log1p()


@mutant("focal-in-half", rejects="FOC-7", operation="sigmoid_focal_loss", origin="no conversion")
class InHalf(FocalByHand):
    """Computes in the dtype of the logits."""

    def wide(self, logits: Logits) -> Logits:
        return logits


@mutant(
    "focal-summed-in-half",
    rejects="FOC-7",
    operation="sigmoid_focal_loss",
    origin="an accumulator of the output's dtype",
)
class SummedInHalf(FocalByHand):
    """Computes in float32 and adds the elements up one after the other in the dtype of the logits."""

    def __call__(self, logits: Logits, targets: Logits, num_boxes: Scalar, **settings: float) -> Scalar:
        self.dtype = logits.dtype
        return super().__call__(logits, targets, num_boxes, **settings)

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        total = loss.new_zeros((), dtype=self.dtype)
        for element in loss.flatten().to(self.dtype).unbind():
            total = total + element
        return total / num_boxes


@mutant("focal-probabilities-in-half", rejects="FOC-7", operation="sigmoid_focal_loss", origin="autocast by hand")
class ProbabilitiesInHalf(FocalByHand):
    """Has probabilities in bfloat16, the rest in float32."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return super().factor(x.bfloat16(), positive, gamma).to(x.dtype)


@mutant(
    "focal-detached-factor", rejects="FOC-8", operation="sigmoid_focal_loss", origin="the factor as a weight: no_grad"
)
class DetachedFactor(FocalByHand):
    """Takes the modulating factor for a constant."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return super().factor(x, positive, gamma).detach()


class WithoutGamma(ClosedForm):
    """Forgets the factor gamma in the derivative."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        factor, right, surprise, wrong = ctx.saved_tensors
        return grads[0] * factor * (right * surprise + wrong), None


@mutant(
    "focal-derivative-without-gamma", rejects="FOC-8", operation="sigmoid_focal_loss", origin="a kernel's derivative"
)
class DerivativeWithoutGamma(WithClosedForm):
    """Has a written-out derivative with a factor 1 for gamma."""

    def modulated(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        result: Tensor = WithoutGamma.apply(self.against(x, positive), gamma)
        return result


@mutant(
    "focal-kink-at-zero",
    rejects="FOC-8",
    operation="sigmoid_focal_loss",
    origin="TensorFlow: max(x, 0) - x z + log(1 + exp(-|x|))",
)
class KinkAtZero(FocalByHand):
    """Has the derivatives of max and abs at 0, both 0, where the sum's is a half: new heads stand there."""

    def softplus(self, x: Logits) -> Logits:
        return x.relu() + (-x.abs()).exp().log1p()


@mutant("focal-power-of-zero", rejects="FOC-9", operation="sigmoid_focal_loss", origin="(1 - p_t) ** gamma")
class PowerOfZero(FocalByHand):
    """Takes the root of a probability of 0, whose derivative is infinite."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return self.against(x, positive).sigmoid() ** gamma


@mutant(
    "focal-chosen-afterwards",
    rejects="FOC-9",
    operation="sigmoid_focal_loss",
    origin="where(x > 80, x, log(1 + exp(x)))",
)
class ChosenAfterwards(FocalByHand):
    """Takes the logit where the exponential overflows, but the gradient of both."""

    def softplus(self, x: Logits) -> Logits:
        return torch.where(x > 80, x, x.exp().log1p())


@mutant("focal-targets-broadcast", rejects="FOC-10", operation="sigmoid_focal_loss", origin="no check")
class TargetsBroadcast(FocalByHand):
    """Repeats targets over classes or images."""

    def check(self, logits: Logits, targets: Logits) -> None:
        torch.broadcast_shapes(logits.shape, targets.shape)


@mutant("focal-rest-ignored", rejects="FOC-10", operation="sigmoid_focal_loss", origin="zip or [..., :num_classes]")
class RestIgnored(FocalByHand):
    """Drops a class beyond the last logit, the background of some, without a word."""

    def __call__(self, logits: Logits, targets: Logits, num_boxes: Scalar, **settings: float) -> Scalar:
        return super().__call__(logits, targets[..., : logits.shape[-1]], num_boxes, **settings)


@mutant("focal-one-less-probability", rejects="FOC-11", operation="sigmoid_focal_loss", origin="1 - p_t, as everywhere")
class OneLessProbability(FocalByHand):
    """Subtracts a probability near 1 from 1."""

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        right = (-self.against(x, positive)).sigmoid()
        wrong = 1 - right
        return torch.where(wrong > 0, wrong, 0.0).clamp(min=torch.finfo(x.dtype).tiny) ** gamma


@mutant(
    "focal-two-class-softmax",
    rejects="FOC-11",
    operation="sigmoid_focal_loss",
    origin="a sigmoid is a softmax over (logit, 0)",
)
class TwoClassSoftmax(FocalByHand):
    """Has -log p as the difference of two numbers that are nearly the same where p is near 1."""

    def modulated(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        yes, no = torch.stack((x, torch.zeros_like(x)), -1).log_softmax(-1).unbind(-1)
        right, wrong = torch.where(positive, yes, no), torch.where(positive, no, yes)
        return -(gamma * wrong).exp() * right
