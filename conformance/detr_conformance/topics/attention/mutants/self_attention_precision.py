"""Mutants of self-attention: precision, gradients, arguments (SA-13, SA-14, SA-19)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.self_attention import HandWrittenSelfAttention, Logits, Tokens

Projected = Float[Tensor, "batch token three_embeds"]


@mutant(
    "self-weights-in-bfloat16",
    rejects="SA-13",
    operation="self_attention",
    origin="a flash kernel that rounds the weights",
)
class WeightsInBfloat16(HandWrittenSelfAttention):
    """Rounds the weights to bfloat16."""

    def dropped(self, weights: Logits) -> Logits:
        return super().dropped(weights.to(torch.bfloat16).to(weights.dtype))


@mutant(
    "self-small-weights-dropped",
    rejects="SA-13",
    operation="self_attention",
    origin="sparse attention: weights below 1 / 1000 skipped",
)
class SmallWeightsDropped(HandWrittenSelfAttention):
    """Takes weights below a thousandth for zero."""

    def weights(self, logits: Logits) -> Logits:
        weights = super().weights(logits)
        return weights * (weights >= 1e-3)


@mutant(
    "self-weights-detached",
    rejects="SA-14",
    operation="self_attention",
    origin="attention weights taken from a visualisation hook",
)
class WeightsDetached(HandWrittenSelfAttention):
    """Lets no gradient reach the weights: query and key never learn."""

    def dropped(self, weights: Logits) -> Logits:
        return super().dropped(weights.detach() + 0 * weights)


@mutant(
    "self-gradient-of-softmax-diagonal",
    rejects="SA-14",
    operation="self_attention",
    origin="p (1 - p) for the softmax's Jacobian",
)
class GradientOfSoftmaxDiagonal(HandWrittenSelfAttention):
    """Differentiates the softmax entry by entry."""

    def weights(self, logits: Logits) -> Logits:
        right = super().weights(logits).detach()
        return right + (logits - logits.detach()) * right * (1 - right)


@mutant(
    "self-channels-cut",
    rejects="SA-19",
    operation="self_attention",
    origin="weights resized to the input, to be helpful",
)
class ChannelsCut(HandWrittenSelfAttention):
    """Uses as many columns of the projection as the input has channels."""

    def projected(self, x: Tokens) -> Projected:
        width = min(x.shape[-1], self.config.embed_dim)
        return F.linear(x[..., :width], self.qkv.weight[:, :width], self.qkv.bias)
