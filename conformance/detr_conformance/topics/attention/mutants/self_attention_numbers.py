"""Mutants of self-attention: dropout, numbers, arguments (SA-11 to SA-14, SA-19)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.self_attention import HandWrittenSelfAttention, Heads, Logits, Tokens

Projected = Float[Tensor, "batch token three_embeds"]
Parts = tuple[Heads, Heads, Heads]


@mutant(
    "self-weights-always-dropped", rejects="SA-11", operation="self_attention", origin="F.dropout without training="
)
class WeightsAlwaysDropped(HandWrittenSelfAttention):
    """Drops weights in evaluation, too."""

    def dropped(self, weights: Logits) -> Logits:
        return F.dropout(weights, self.config.attn_drop)


@mutant(
    "self-weights-never-dropped", rejects="SA-11", operation="self_attention", origin="attn_drop accepted and not used"
)
class WeightsNeverDropped(HandWrittenSelfAttention):
    """Never drops weights."""

    def dropped(self, weights: Logits) -> Logits:
        return weights


@mutant(
    "self-weights-renormalised",
    rejects="SA-11",
    operation="self_attention",
    origin="dropout of the logits, by minus infinity",
)
class WeightsRenormalised(HandWrittenSelfAttention):
    """Drops weights and lets the others sum to one again."""

    def dropped(self, weights: Logits) -> Logits:
        kept = F.dropout(weights, self.config.attn_drop, self.training)
        return kept / kept.sum(-1, keepdim=True).clamp(min=1e-3)


@mutant(
    "self-one-dropout-for-all-heads",
    rejects="SA-11",
    operation="self_attention",
    origin="one random mask broadcast over the heads",
)
class OneDropoutForAllHeads(HandWrittenSelfAttention):
    """Drops the same weights in every head."""

    def dropped(self, weights: Logits) -> Logits:
        return weights * F.dropout(torch.ones_like(weights[:, :1]), self.config.attn_drop, self.training)


@mutant("self-result-dropped-for-weights", rejects="SA-11", operation="self_attention", origin="dropout(attn @ v)")
class ResultDroppedForWeights(HandWrittenSelfAttention):
    """Applies the weights' dropout to what was read."""

    def dropped(self, weights: Logits) -> Logits:
        return weights

    def join(self, heads: Heads) -> Tokens:
        return super().join(F.dropout(heads, self.config.attn_drop, self.training))


@mutant(
    "self-output-never-dropped", rejects="SA-12", operation="self_attention", origin="proj_drop accepted and not used"
)
class OutputNeverDropped(HandWrittenSelfAttention):
    """Never drops channels of the output."""

    def result(self, joined: Tokens) -> Tokens:
        return self.proj(joined)


@mutant("self-dropped-before-projection", rejects="SA-12", operation="self_attention", origin="proj(dropout(x))")
class DroppedBeforeProjection(HandWrittenSelfAttention):
    """Drops channels of the joined heads, before the projection."""

    def result(self, joined: Tokens) -> Tokens:
        return self.proj(F.dropout(joined, self.config.proj_drop, self.training))


@mutant(
    "self-dropout-not-rescaled",
    rejects="SA-12",
    operation="self_attention",
    origin="torch.bernoulli without the division",
)
class DropoutNotRescaled(HandWrittenSelfAttention):
    """Keeps what is not dropped as it is."""

    def result(self, joined: Tokens) -> Tokens:
        keep = 1 - self.config.proj_drop if self.training else 1.0
        return super().result(joined) * keep


@mutant(
    "self-whole-tokens-dropped",
    rejects="SA-12",
    operation="self_attention",
    origin="stochastic depth in the place of dropout",
)
class WholeTokensDropped(HandWrittenSelfAttention):
    """Drops all channels of a token or none."""

    def result(self, joined: Tokens) -> Tokens:
        kept = F.dropout(torch.ones_like(joined[..., :1]), self.config.proj_drop, self.training)
        return self.proj(joined) * kept


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
