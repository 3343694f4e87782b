"""Mutants of multi-head attention: precision, gradients, initialisation, checks (MHA-24 to MHA-27)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.multihead_attention import (
    Call,
    HandWrittenAttention,
    Heads,
    Inputs,
    Padding,
    Pairs,
    Scores,
)

LOWER = {torch.float64: torch.float32, torch.float32: torch.bfloat16, torch.float16: torch.bfloat16}


def lowered(tensor: Tensor) -> Tensor:
    """Rounded to the next lower precision; bfloat16 to four bits."""
    if tensor.dtype in LOWER:
        return tensor.to(LOWER[tensor.dtype]).to(tensor.dtype)
    return tensor.to(torch.float8_e4m3fn).to(tensor.dtype)


@mutant("scores-in-lower-precision", rejects="MHA-24", origin="autocast left on; TF32 products")
class ScoresInLowerPrecision(HandWrittenAttention):
    """Rounds queries and keys to the next lower precision before their product."""

    def scores(self, q: Heads, k: Heads) -> Scores:
        return super().scores(lowered(q), lowered(k))


@mutant("weights-in-lower-precision", rejects="MHA-24", origin="FlashAttention casts P to the type of V; FP8 kernels")
class WeightsInLowerPrecision(HandWrittenAttention):
    """Rounds the weights to the next lower precision."""

    def read(self, weights: Scores, v: Heads) -> Heads:
        return super().read(lowered(weights), v)


@mutant("approximate-exponential", rejects="MHA-24", origin="Schraudolph's exp, and exp2 by a short polynomial")
class ApproximateExponential(HandWrittenAttention):
    """Takes exp(x) for (1 + x / 256)^256."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        wide = (scores if bias is None else scores + bias).to(torch.promote_types(scores.dtype, torch.float32))
        wide = wide if forbidden is None else wide.masked_fill(forbidden, -torch.inf)
        if not scores.shape[-1]:
            return scores
        top = wide.detach().amax(-1, keepdim=True).clamp(min=-1e30)
        powers = (1 + (wide - top).clamp(min=-255) / 256) ** 256
        powers = powers if forbidden is None else powers.masked_fill(forbidden, 0)
        total = powers.sum(-1, keepdim=True)
        return (powers / total.masked_fill(total == 0, 1)).to(scores.dtype)


class _WithoutRowSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, scores: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (weights,) = ctx.saved_tensors
        return None, weights * gradients[0]


@mutant(
    "softmax-gradient-without-its-sum", rejects="MHA-25", origin="dS = P * dP in a hand-written backward: D forgotten"
)
class SoftmaxGradientWithoutItsSum(HandWrittenAttention):
    """Forgets sum(P dP) in the gradient of the softmax."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        return _WithoutRowSum.apply(super().weights(scores, bias, forbidden).detach(), scores)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


@mutant("scale-missing-in-the-keys-gradient", rejects="MHA-25", origin="a backward kernel that scales dQ alone")
class ScaleMissingInTheKeysGradient(HandWrittenAttention):
    """Does not scale the gradient of the keys."""

    def scores(self, q: Heads, k: Heads) -> Scores:
        return super().scores(q, _Scaled.apply(k, 1 / self.scale()))


@mutant(
    "positions-without-gradient",
    rejects="MHA-25",
    origin="query_pos.detach(): positions are constants in DETR, not in DAB",
)
class PositionsWithoutGradient(HandWrittenAttention):
    """Gives the positions gradients of zero."""

    def inputs(self, call: Call) -> Inputs:
        given = (call.query_pos, call.key_pos)
        query_pos, key_pos = (None if each is None else _Scaled.apply(each, 0.0) for each in given)
        return super().inputs(call._replace(query_pos=query_pos, key_pos=key_pos))


@mutant("last-head-without-gradient", rejects="MHA-25", origin="a grid of M - 1 blocks in backward")
class LastHeadWithoutGradient(HandWrittenAttention):
    """Loses the value's gradient in the last head."""

    def read(self, weights: Scores, v: Heads) -> Heads:
        return super().read(weights, torch.cat((v[:, :-1], _Scaled.apply(v[:, -1:], 0.0)), 1))


@mutant("xavier-by-thirds", rejects="MHA-26", origin="xavier_uniform_ of q_proj, k_proj and v_proj")
class XavierByThirds(HandWrittenAttention):
    """Draws each third as a matrix of its own, from a range wider by sqrt(2)."""

    def initialise(self) -> None:
        super().initialise()
        for third in self.in_proj_weight.chunk(3):
            nn.init.xavier_uniform_(third)


@mutant("out-proj-by-xavier", rejects="MHA-26", origin="DETR's loop: every matrix xavier_uniform_")
class OutProjByXavier(HandWrittenAttention):
    """Draws out_proj.weight by Xavier's rule."""

    def initialise(self) -> None:
        super().initialise()
        nn.init.xavier_uniform_(self.out_proj.weight)


@mutant("out-proj-bias-as-linear", rejects="MHA-26", origin="nn.Linear as it comes")
class OutProjBiasAsLinear(HandWrittenAttention):
    """Leaves the bias that nn.Linear draws."""

    def initialise(self) -> None:
        nn.init.xavier_uniform_(self.in_proj_weight)


@mutant("in-proj-bias-drawn", rejects="MHA-26", origin="in_proj as an nn.Linear(C, 3C)")
class InProjBiasDrawn(HandWrittenAttention):
    """Draws in_proj_bias as nn.Linear would."""

    def initialise(self) -> None:
        super().initialise()
        nn.init.uniform_(self.in_proj_bias, -((self.heads * self.size) ** -0.5), (self.heads * self.size) ** -0.5)


@mutant("anything-that-broadcasts", rejects="MHA-27", origin="no checks: a mask of one row, a position of one token")
class AnythingThatBroadcasts(HandWrittenAttention):
    """Accepts whatever torch can broadcast."""

    def check(self, inputs: Inputs, call: Call, attn_mask: Tensor | None, padding: Padding | None) -> None:
        pass
