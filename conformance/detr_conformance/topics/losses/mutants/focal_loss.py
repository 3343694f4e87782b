"""The focal loss, one overridable step after another, and other right ways to write it.

Unchanged the steps are a twin; the mutants of FOC-1 to FOC-12 override one of them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from detr_conformance.evidence.registry import twin

Logits = Float[Tensor, "*token classes"]
Targets = Bool[Tensor, "*token classes"]
Scalar = Float[Tensor, ""]


@twin("focal-by-hand", operation="sigmoid_focal_loss", origin="logarithms of sums of exponentials")
class FocalByHand:
    """Has the logarithms of both probabilities from logaddexp and takes powers in logarithms."""

    def __call__(
        self, logits: Logits, targets: Logits, num_boxes: Scalar, *, alpha: float = 0.25, gamma: float = 2.0
    ) -> Scalar:
        self.check(logits, targets)
        x, positive = self.wide(logits), targets > 0.5
        loss = self.weighted(self.modulated(x, positive, gamma), positive, alpha)
        return self.reduced(loss, positive, num_boxes.to(loss.dtype)).to(logits.dtype)

    def check(self, logits: Logits, targets: Logits) -> None:
        if logits.shape != targets.shape:
            raise ValueError(f"{tuple(logits.shape)} logits and {tuple(targets.shape)} targets")

    def wide(self, logits: Logits) -> Logits:
        return logits if logits.dtype == torch.float64 else logits.float()

    def modulated(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        return self.factor(x, positive, gamma) * self.surprise(x, positive)

    def against(self, x: Logits, positive: Targets) -> Logits:
        """The logit of the wrong answer."""
        return torch.where(positive, -x, x)

    def surprise(self, x: Logits, positive: Targets) -> Logits:
        """-log of the probability of the right answer."""
        return self.softplus(self.against(x, positive))

    def factor(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        """The probability of the wrong answer, to the power of gamma."""
        return torch.exp(-gamma * self.softplus(-self.against(x, positive)))

    def softplus(self, x: Logits) -> Logits:
        return torch.logaddexp(x, torch.zeros_like(x))

    def weighted(self, loss: Logits, positive: Targets, alpha: float) -> Logits:
        return loss * torch.where(positive, torch.full_like(loss, alpha), torch.full_like(loss, 1 - alpha))

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss.sum() / num_boxes


@twin(
    "focal-two-sums",
    operation="sigmoid_focal_loss",
    origin="one sum over positives, one over negatives, as in the paper",
)
class TwoSums(FocalByHand):
    """Gathers the positive and the negative elements and sums each kind up by itself."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        return loss[positive].sum() / num_boxes + loss[~positive].sum() / num_boxes


@twin("focal-class-by-class", operation="sigmoid_focal_loss", origin="a loop over the classes")
class ClassByClass(FocalByHand):
    """Sums up the classes one after the other, each already divided."""

    def reduced(self, loss: Logits, positive: Targets, num_boxes: Scalar) -> Scalar:
        total = loss.new_zeros(())
        for of_class in loss.unbind(-1):
            total = total + (of_class / num_boxes).sum()
        return total


class ClosedForm(torch.autograd.Function):
    """Loss of each element with its derivative written out, as in the kernels of mmcv and detectron2's fvcore."""

    @staticmethod
    def forward(ctx: Any, against: Tensor, gamma: float) -> Tensor:
        right, wrong = torch.sigmoid(-against), torch.sigmoid(against)
        surprise = torch.logaddexp(against, torch.zeros_like(against))
        factor = wrong.pow(gamma)
        ctx.save_for_backward(factor, right, surprise, wrong)
        ctx.gamma = gamma
        return factor * surprise

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        factor, right, surprise, wrong = ctx.saved_tensors
        return grads[0] * factor * (ctx.gamma * right * surprise + wrong), None


@twin("focal-closed-form", operation="sigmoid_focal_loss", origin="the kernels of mmcv: the derivative written out")
class WithClosedForm(FocalByHand):
    """Has a derivative of its own: (1 - p)^gamma (gamma p (-log p) + 1 - p)."""

    def modulated(self, x: Logits, positive: Targets, gamma: float) -> Logits:
        result: Tensor = ClosedForm.apply(self.against(x, positive), gamma)
        return result
