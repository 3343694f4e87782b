"""Mutants of multi-head attention: what forbidding a key amounts to (MHA-13 to MHA-17)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.multihead_attention import (
    HandWrittenAttention,
    Inputs,
    Padding,
    Pairs,
    Scores,
)


@mutant("minus-ten-thousand", rejects="MHA-13", origin="BERT: (1 - mask) * -10000.0")
class MinusTenThousand(HandWrittenAttention):
    """Adds -10000 in place of -inf."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is None:
            return super().weights(scores, bias, forbidden)
        scores = scores if bias is None else scores + bias.clamp(min=-10000)
        return (scores - 10000 * forbidden.to(scores.dtype)).softmax(-1).masked_fill(forbidden.all(-1, True), 0)


@mutant("forbidden-after-softmax", rejects="MHA-13", origin="weights * mask / sum(weights * mask)")
class ForbiddenAfterSoftmax(HandWrittenAttention):
    """Removes forbidden weights after the softmax and divides by what is left."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is None:
            return super().weights(scores, bias, forbidden)
        bias = bias if bias is None else bias.masked_fill(bias.isneginf(), 0)
        weights = super().weights(scores, bias, None).masked_fill(forbidden, 0)
        total = weights.sum(-1, keepdim=True)
        return weights / total.masked_fill(total == 0, 1)


@mutant("minus-thirty", rejects="MHA-13", origin="masked_fill(mask, -30): exp of it is below float32's round-off")
class MinusThirty(HandWrittenAttention):
    """Replaces forbidden scores by -30, which a large value makes up for."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is None:
            return super().weights(scores, bias, forbidden)
        scores = scores if bias is None else scores + bias.clamp(min=-30)
        return scores.masked_fill(forbidden, -30).softmax(-1).masked_fill(forbidden.all(-1, True), 0)


@mutant(
    "mask-dropped-if-a-query-has-no-keys", rejects="MHA-14", origin="if mask.all(-1).any(): mask = None, against NaN"
)
class MaskDropped(HandWrittenAttention):
    """Forgets the masks of a call in which some query may attend to nothing."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is not None and forbidden.all(-1).any():
            lifted = super().weights(scores, None, None)
            return lifted.masked_fill(forbidden.all(-1, keepdim=True), 0)
        return super().weights(scores, bias, forbidden)


@mutant("nan-ends-the-call", rejects="MHA-14", origin="if weights.isnan().any(): return identity")
class NanEndsTheCall(HandWrittenAttention):
    """Gives no query any attention if one of them may attend to nothing."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        weights = super().weights(scores, bias, forbidden)
        return weights * 0 if forbidden is not None and forbidden.all(-1).any() else weights


@mutant("nan-in-the-image", rejects="MHA-14", origin="a block of queries that shares its running maximum")
class NanInTheImage(HandWrittenAttention):
    """Subtracts the smallest of the queries' maxima, -inf if one of them may attend to nothing."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        weights = super().weights(scores, bias, forbidden)
        if forbidden is None:
            return weights
        lowest = scores.detach().masked_fill(forbidden, -torch.inf).amax((-1,), keepdim=True).amin(-2, keepdim=True)
        return weights + (lowest - lowest) if scores.shape[-1] else weights


@mutant("nothing-to-attend-is-nan", rejects="MHA-15", origin="torch's module with need_weights=True, torch 2.13")
class NothingToAttendIsNan(HandWrittenAttention):
    """Takes the softmax of nothing but -inf."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        scores = scores if bias is None else scores + bias
        return (scores if forbidden is None else scores.masked_fill(forbidden, -torch.inf)).softmax(-1)


@mutant(
    "nothing-to-attend-is-the-mean", rejects="MHA-15", origin="finfo.min in place of -inf, in transformers and timm"
)
class NothingToAttendIsTheMean(HandWrittenAttention):
    """Weighs all keys alike where all are forbidden."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        scores = scores if bias is None else scores + bias
        lowest = torch.finfo(scores.dtype).min
        return (scores if forbidden is None else scores.masked_fill(forbidden, lowest)).softmax(-1)


@mutant("nan-to-zero-forward", rejects="MHA-15", origin="softmax(...).nan_to_num(): right forward, NaN backward")
class NanToZeroForward(HandWrittenAttention):
    """Replaces the NaN of an empty softmax behind it, which leaves NaN in its gradient."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is None:
            return super().weights(scores, bias, forbidden)
        minus = torch.zeros_like(scores).masked_fill(forbidden, -torch.inf)
        return (scores + minus if bias is None else scores + bias + minus).softmax(-1).nan_to_num()


@mutant("no-keys-no-projection", rejects="MHA-15", origin="torch.where(empty, identity, output)")
class NoKeysNoProjection(HandWrittenAttention):
    """Returns the identity, without out_proj.bias, for a query that may attend to nothing."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        self.alive = None if forbidden is None else ~forbidden.all(-1).all(1)
        return super().weights(scores, bias, forbidden)

    def result(self, joined: Tensor, identity: Tensor) -> Tensor:
        output = super().result(joined, identity)
        return output if self.alive is None else torch.where(self.alive[..., None], output, identity)


@mutant("gradient-through-the-mask", rejects="MHA-16", origin="a backward kernel that recomputes the softmax unmasked")
class GradientThroughTheMask(HandWrittenAttention):
    """Has the gradient of attention without masks."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        weights = super().weights(scores, bias, forbidden)
        open_weights = scores.softmax(-1)
        return weights.detach() + (open_weights - open_weights.detach())


@mutant("epsilon-in-every-weight", rejects="MHA-16", origin="softmax(...) + 1e-8, against division by zero further on")
class EpsilonInEveryWeight(HandWrittenAttention):
    """Adds a number to every weight which is too small to show in the output."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        return super().weights(scores, bias, forbidden) + 1e-8


@mutant("padding-multiplied-by-zero", rejects="MHA-17", origin="torch's module, and any plain matrix product")
class PaddingMultipliedByZero(HandWrittenAttention):
    """Trusts a weight of zero to keep padded values out."""

    def cleared(self, inputs: Inputs, padding: Padding | None) -> Inputs:
        return inputs


@mutant("padded-keys-spread", rejects="MHA-17", origin="padding cleared in the values alone; NaN + -inf is NaN")
class PaddedKeysSpread(HandWrittenAttention):
    """Clears padded values but not their keys, and adds -inf to their scores."""

    def cleared(self, inputs: Inputs, padding: Padding | None) -> Inputs:
        return super().cleared(inputs, padding)._replace(compared=inputs.compared)

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is None:
            return super().weights(scores, bias, forbidden)
        minus = torch.zeros_like(scores).masked_fill(forbidden, -torch.inf)
        nothing = forbidden.all(-1, keepdim=True)
        scores = scores + minus if bias is None else scores + bias + minus
        return scores.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)
