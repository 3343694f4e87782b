"""Mutants of self-attention: dropout of weights and of the output (SA-11, SA-12)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.self_attention import HandWrittenSelfAttention, Heads, Logits, Tokens


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
