"""Mutants of the focal loss: large logits, accuracy, gradients and errors (FOC-6 to FOC-12)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.focal_loss import (
    ClosedForm,
    FocalByHand,
    Logits,
    Scalar,
    Targets,
    WithClosedForm,
)


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


@mutant("focal-nan-ignored", rejects="FOC-12", operation="sigmoid_focal_loss", origin="nansum against NaN")
class NanIgnored(FocalByHand):
    """Counts elements that are NaN as nothing."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss.nansum() / num_boxes
