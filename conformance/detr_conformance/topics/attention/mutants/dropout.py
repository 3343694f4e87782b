"""Mutants of multi-head attention: dropout of weights and of the result (MHA-22, MHA-23)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.multihead_attention import HandWrittenAttention, Heads, Scores, Tokens


@mutant("no-dropout-of-weights", rejects="MHA-22", origin="attn_drop accepted and not handed on")
class NoDropoutOfWeights(HandWrittenAttention):
    """Drops no weights."""

    def dropped_weights(self, weights: Scores) -> Scores:
        return weights


@mutant(
    "weights-dropped-in-evaluation",
    rejects="MHA-22",
    origin="scaled_dot_product_attention(dropout_p=p): no training flag",
)
class WeightsDroppedInEvaluation(HandWrittenAttention):
    """Drops weights in evaluation too."""

    def dropped_weights(self, weights: Scores) -> Scores:
        return F.dropout(weights, self.config.attn_drop)


@mutant("weights-dropped-unscaled", rejects="MHA-22", origin="weights * keep, without 1 / (1 - p)")
class WeightsDroppedUnscaled(HandWrittenAttention):
    """Does not divide the weights that are kept."""

    def dropped_weights(self, weights: Scores) -> Scores:
        return super().dropped_weights(weights) * (1 - self.config.attn_drop if self.training else 1)


@mutant("scores-dropped", rejects="MHA-22", origin="dropout before the softmax")
class ScoresDropped(HandWrittenAttention):
    """Drops scores, which then weigh as a score of zero does."""

    def scores(self, q: Heads, k: Heads) -> Scores:
        return F.dropout(super().scores(q, k), self.config.attn_drop, self.training)

    def dropped_weights(self, weights: Scores) -> Scores:
        return weights


@mutant("normalised-after-dropout", rejects="MHA-22", origin="DropKey, arXiv:2208.02646: dropped keys are masked")
class NormalisedAfterDropout(HandWrittenAttention):
    """Normalises what dropout leaves."""

    def dropped_weights(self, weights: Scores) -> Scores:
        weights = super().dropped_weights(weights)
        return weights / weights.sum(-1, keepdim=True).clamp(min=1e-6) if self.training else weights


@mutant(
    "heads-share-their-dropout", rejects="MHA-22", origin="one random number a pair in a kernel seeded without the head"
)
class HeadsShareTheirDropout(HandWrittenAttention):
    """Drops the same pairs in every head."""

    def dropped_weights(self, weights: Scores) -> Scores:
        return weights * super().dropped_weights(torch.ones_like(weights[:, :1]))


@mutant("values-dropped", rejects="MHA-22", origin="dropout(v) in place of dropout(weights)")
class ValuesDropped(HandWrittenAttention):
    """Drops keys for all queries at once."""

    def dropped_weights(self, weights: Scores) -> Scores:
        return weights * super().dropped_weights(torch.ones_like(weights[:, :, :1]))


@mutant("images-share-their-dropout", rejects="MHA-22", origin="a mask of (M, Q, K) drawn once and broadcast")
class ImagesShareTheirDropout(HandWrittenAttention):
    """Drops the same weights in every image."""

    def dropped_weights(self, weights: Scores) -> Scores:
        return weights * super().dropped_weights(torch.ones_like(weights[:1]))


@mutant("no-dropout-of-the-result", rejects="MHA-23", origin="torch's module, which has no second dropout")
class NoDropoutOfTheResult(HandWrittenAttention):
    """Returns the projected result whole."""

    def result(self, joined: Tokens, identity: Tokens) -> Tokens:
        return identity + self.out_proj(joined)


@mutant("attention-drops-the-identity", rejects="MHA-23", origin="dropout(identity + output)")
class DropsTheIdentity(HandWrittenAttention):
    """Drops elements of the sum."""

    def result(self, joined: Tokens, identity: Tokens) -> Tokens:
        return F.dropout(identity + self.out_proj(joined), self.config.proj_drop, self.training)


@mutant("result-dropped-before-projection", rejects="MHA-23", origin="out_proj(dropout(joined))")
class ResultDroppedBeforeProjection(HandWrittenAttention):
    """Drops channels of the joined heads, before out_proj."""

    def result(self, joined: Tokens, identity: Tokens) -> Tokens:
        return identity + self.out_proj(F.dropout(joined, self.config.proj_drop, self.training))


@mutant("whole-queries-dropped", rejects="MHA-23", origin="stochastic depth taken for dropout")
class WholeQueriesDropped(HandWrittenAttention):
    """Drops all channels of a query together."""

    def result(self, joined: Tokens, identity: Tokens) -> Tokens:
        kept = F.dropout(torch.ones_like(joined[..., :1]), self.config.proj_drop, self.training)
        return identity + kept * self.out_proj(joined)


@mutant("one-rate-for-both-dropouts", rejects="MHA-23", origin="nn.Dropout(attn_drop) in both places")
class OneRateForBothDropouts(HandWrittenAttention):
    """Drops results at the rate of the weights."""

    def result(self, joined: Tokens, identity: Tokens) -> Tokens:
        return identity + F.dropout(self.out_proj(joined), self.config.attn_drop, self.training)
