"""Mutants of box refinement (SEL-41 to SEL-50)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.proposals_and_refinement import RefinementByHand


@mutant("refinement-after-the-sigmoid", rejects="SEL-41", operation="refine_boxes", origin="a first idea of refinement")
class AfterTheSigmoid(RefinementByHand):
    """Adds corrections within [-0.5, 0.5] to the box."""

    def added(self, delta: Tensor, logit: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(logit, (0, 4 - logit.shape[-1])).sigmoid()
        return (padded + delta.sigmoid() - 0.5).clamp(0, 1)


class _KeepsItsOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.box = x.sigmoid()
        return ctx.box.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * (ctx.box * (1 - ctx.box))


@mutant(
    "refinement-once-differentiable-in-secret",
    rejects="BLK-32",
    operation="refine_boxes",
    origin="ctx.y = y, whose graph a second derivative lacks",
)
class OnceDifferentiableInSecret(RefinementByHand):
    """Takes the slope of its sigmoid for a constant when gradients are differentiated."""

    def box(self, logit: Tensor) -> Tensor:
        box: Tensor = _KeepsItsOutput.apply(logit)
        return box


@mutant("refinement-logit-missing", rejects="SEL-41", operation="refine_boxes", origin="sigmoid(delta + reference)")
class LogitMissing(RefinementByHand):
    """Adds the reference itself."""

    def logit(self, x: Tensor, eps: float) -> Tensor:
        return x


@mutant("refinement-from-scratch", rejects="SEL-41", operation="refine_boxes", origin="DETR: sigmoid(delta)")
class FromScratch(RefinementByHand):
    """Forgets the size of the reference."""

    def logit(self, x: Tensor, eps: float) -> Tensor:
        return torch.cat((super().logit(x, eps)[..., :2], torch.zeros_like(x[..., 2:])), -1)


@mutant(
    "refinement-torch-logit", rejects="SEL-42", operation="refine_boxes", origin="grounding_dino: torch.special.logit"
)
class TorchLogit(RefinementByHand):
    """Clamps the reference to [eps, 1 - eps]."""

    def logit(self, x: Tensor, eps: float) -> Tensor:
        return torch.logit(x, eps)


@mutant("refinement-epsilon-added", rejects="SEL-42", operation="refine_boxes", origin="log((x + eps) / (1 - x + eps))")
class EpsilonAdded(RefinementByHand):
    """Adds eps to both halves."""

    def logit(self, x: Tensor, eps: float) -> Tensor:
        x = self.inside(x)
        return torch.log((x + eps) / (1 - x + eps))


@mutant("refinement-fixed-epsilon", rejects="SEL-43", operation="refine_boxes", origin="1e-5 of Deformable DETR")
class FixedEpsilon(RefinementByHand):
    """Has 1e-5 whatever is asked for."""

    def epsilon(self, eps: float) -> float:
        return 1e-5


@mutant("refinement-other-default", rejects="SEL-43", operation="refine_boxes", origin="transformers, inverse_sigmoid")
class OtherDefault(RefinementByHand):
    """Has 1e-5 if nothing is said."""

    def __call__(self, delta: Tensor, reference: Tensor, *, eps: float = 1e-5) -> Tensor:
        return super().__call__(delta, reference, eps=eps)


@mutant("refinement-outside-as-it-is", rejects="SEL-44", operation="refine_boxes", origin="the first clamp left out")
class OutsideAsItIs(RefinementByHand):
    """Does not move references into [0, 1]."""

    def inside(self, x: Tensor) -> Tensor:
        return x


@mutant("refinement-outside-below-only", rejects="SEL-44", operation="refine_boxes", origin="clamp(min=0)")
class OutsideBelowOnly(RefinementByHand):
    """Moves references up to 0, but not down to 1."""

    def inside(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


@mutant(
    "refinement-points-as-boxes", rejects="SEL-45", operation="refine_boxes", origin="a point repeated: cat((p, p))"
)
class PointsAsBoxes(RefinementByHand):
    """Takes a point for a box as large as it is far."""

    def given(self, reference: Tensor) -> Tensor:
        return reference if reference.shape[-1] == 4 else reference.repeat_interleave(2, -1)[..., [0, 2, 1, 3]]


@mutant(
    "refinement-points-of-size-zero", rejects="SEL-45", operation="refine_boxes", origin="a point padded with zeros"
)
class PointsOfSizeZero(RefinementByHand):
    """Takes a point for a box of size 0."""

    def given(self, reference: Tensor) -> Tensor:
        return torch.nn.functional.pad(reference, (0, 4 - reference.shape[-1]))


@mutant("refinement-points-to-sizes", rejects="SEL-45", operation="refine_boxes", origin="[..., 2:]")
class PointsToSizes(RefinementByHand):
    """Adds a point to the last two numbers."""

    def added(self, delta: Tensor, logit: Tensor) -> Tensor:
        return self.box(delta + torch.nn.functional.pad(logit, (4 - logit.shape[-1], 0)))


@mutant("refinement-odds", rejects="SEL-46", operation="refine_boxes", origin="x e^d / (x e^d + 1 - x), without a log")
class Odds(RefinementByHand):
    """Multiplies the odds by the exponential of the correction, which is infinite over infinite."""

    def box(self, logit: Tensor) -> Tensor:
        odds = logit.exp()
        return torch.where(
            logit < 10, odds / (1 + odds), torch.where(logit.isinf(), odds / (1 + odds), logit.sigmoid())
        )


@mutant(
    "refinement-corrections-clamped", rejects="SEL-46", operation="refine_boxes", origin="clamp, as of exponentials"
)
class CorrectionsClamped(RefinementByHand):
    """Keeps corrections within [-10, 10]."""

    def added(self, delta: Tensor, logit: Tensor) -> Tensor:
        return super().added(torch.where(delta.isinf(), 10.0 * delta.sign(), delta), logit)


@mutant("refinement-three-axes", rejects="SEL-47", operation="refine_boxes", origin="batch, queries, _ = delta.shape")
class ThreeAxes(RefinementByHand):
    """Asks for (batch, query, 4)."""

    def __call__(self, delta: Tensor, reference: Tensor, *, eps: float = 1e-3) -> Tensor:
        batch, queries, _ = delta.shape
        return super().__call__(delta.view(batch, queries, 4), reference, eps=eps)


@mutant("refinement-reference-detached", rejects="SEL-48", operation="refine_boxes", origin="look forward once")
class ReferenceDetached(RefinementByHand):
    """Detaches the reference, on a path that leaves its gradient zero."""

    def given(self, reference: Tensor) -> Tensor:
        finite = reference.detach()
        return finite + 0 * reference


@mutant(
    "refinement-no-slope-near-the-border", rejects="SEL-48", operation="refine_boxes", origin="clamp to [eps, 1 - eps]"
)
class NoSlopeNearTheBorder(RefinementByHand):
    """Has no gradient within eps of the border."""

    def logit(self, x: Tensor, eps: float) -> Tensor:
        logit = super().logit(x, eps)
        return torch.where((x < eps) | (x > 1 - eps), logit.detach() + 0 * logit, logit)


@mutant(
    "refinement-slope-outside", rejects="SEL-48", operation="refine_boxes", origin="a clamp that passes gradients on"
)
class SlopeOutside(RefinementByHand):
    """Lets gradients through to references outside [0, 1]."""

    def inside(self, x: Tensor) -> Tensor:
        return x + (super().inside(x) - x).detach()


@mutant(
    "refinement-in-half", rejects="SEL-49", operation="refine_boxes", origin="transformers: the dtype of the reference"
)
class InHalf(RefinementByHand):
    """Computes in the dtype of the arguments."""

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@mutant("refinement-sum-in-half", rejects="SEL-49", operation="refine_boxes", origin="autocast around the sigmoid")
class SumInHalf(RefinementByHand):
    """Rounds the sum of logits before the sigmoid."""

    def __call__(self, delta: Tensor, reference: Tensor, *, eps: float = 1e-3) -> Tensor:
        self.dtype = delta.dtype
        return super().__call__(delta, reference, eps=eps)

    def box(self, logit: Tensor) -> Tensor:
        return logit.to(self.dtype).to(logit.dtype).sigmoid()


@mutant("refinement-any-number", rejects="SEL-50", operation="refine_boxes", origin="the difference padded with zeros")
class AnyNumber(RefinementByHand):
    """Refines as many numbers as the reference has."""

    def check(self, delta: Tensor, reference: Tensor) -> None:
        pass

    def added(self, delta: Tensor, logit: Tensor) -> Tensor:
        numbers = min(delta.shape[-1], logit.shape[-1])
        return self.box(torch.cat((delta[..., :numbers] + logit[..., :numbers], delta[..., numbers:]), -1))


@mutant(
    "refinement-one-block", rejects="SEL-47", operation="refine_boxes", origin="a kernel without a stride of its grid"
)
class OneBlock(RefinementByHand):
    """Refines the first 1024 numbers, as many as a block has threads, and hands on the rest of the corrections."""

    def box(self, logit: Tensor) -> Tensor:
        flat = logit.flatten()
        return torch.cat((flat[:1024].sigmoid(), flat[1024:])).view(logit.shape)
