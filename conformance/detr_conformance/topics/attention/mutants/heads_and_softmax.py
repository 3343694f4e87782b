"""Mutants of multi-head attention: projections, heads, scale, softmax, lengths, order (MHA-1 to MHA-7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.multihead_attention import (
    HandWrittenAttention,
    Heads,
    Inputs,
    Pairs,
    Scores,
    Tokens,
)


@mutant("thirds-as-query-value-key", rejects="MHA-1", origin="checkpoint converters that write q, v, k")
class ThirdsAsQueryValueKey(HandWrittenAttention):
    """Takes the last third for the key and the middle one for the value."""

    def projections(self, inputs: Inputs) -> list[Heads]:
        (wq, wk, wv), (bq, bk, bv) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        parts = zip(inputs[:3], (wq, wv, wk), (bq, bv, bk), strict=True)
        return [self.split(F.linear(*part)) for part in parts]


@mutant("thirds-by-head", rejects="MHA-1", origin="fused qkv weights of Megatron and GPT-NeoX: (head, 3, channel)")
class ThirdsByHead(HandWrittenAttention):
    """Reads the rows of in_proj as (head, three, channel)."""

    def projections(self, inputs: Inputs) -> list[Heads]:
        weights = self.in_proj_weight.unflatten(0, (self.heads, 3, self.size)).unbind(1)
        biases = self.in_proj_bias.unflatten(0, (self.heads, 3, self.size)).unbind(1)
        parts = zip(inputs[:3], weights, biases, strict=True)
        return [self.split(F.linear(each, w.flatten(0, 1), b.flatten())) for each, w, b in parts]


@mutant("bias-of-the-first-head", rejects="MHA-1", origin="a kernel that reads the bias by the channel of a head")
class BiasOfTheFirstHead(HandWrittenAttention):
    """Gives every head the query bias of the first."""

    def projections(self, inputs: Inputs) -> list[Heads]:
        q, k, v = super().projections(inputs)
        first = self.in_proj_bias[: self.size]
        own = self.in_proj_bias[: self.heads * self.size].unflatten(0, (self.heads, 1, self.size))
        return [q - own + first, k, v]


@mutant("head-channels-interleaved", rejects="MHA-2", origin="view(..., channel, head)")
class HeadChannelsInterleaved(HandWrittenAttention):
    """Gives channel c of the projections to head c % M."""

    def split(self, projected: Tokens) -> Heads:
        return projected.unflatten(-1, (self.size, self.heads)).permute(0, 3, 1, 2)


@mutant("split-without-transpose", rejects="MHA-2", origin="view(B, M, Q, C / M) of (B, Q, C)")
class SplitWithoutTranspose(HandWrittenAttention):
    """Views (B, length, C) as (B, M, length, C / M), which mixes tokens and heads."""

    def split(self, projected: Tokens) -> Heads:
        return projected.reshape(len(projected), self.heads, -1, self.size)


@mutant("joined-without-transpose", rejects="MHA-2", origin="reshape(B, Q, C) of (B, M, Q, C / M)")
class JoinedWithoutTranspose(HandWrittenAttention):
    """Views the attended heads as tokens without moving the axis of the heads."""

    def join(self, attended: Heads) -> Tokens:
        return attended.reshape(len(attended), -1, self.heads * self.size)


@mutant("no-scale", rejects="MHA-3", origin="T5's attention, whose initialisation takes the scale's place")
class NoScale(HandWrittenAttention):
    """Does not divide the scores."""

    def scale(self) -> float:
        return 1.0


@mutant("scaled-by-embedding", rejects="MHA-3", origin="embed_dim ** -0.5, the scale of a single head")
class ScaledByEmbedding(HandWrittenAttention):
    """Divides by the square root of all channels."""

    def scale(self) -> float:
        return (self.heads * self.size) ** -0.5


@mutant("scaled-after-mask", rejects="MHA-3", origin="(q k^T + mask) * scale")
class ScaledAfterMask(HandWrittenAttention):
    """Adds the mask first, and scales it with the scores."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        return super().weights(scores, None if bias is None else bias * self.scale(), forbidden)


@mutant("softmax-over-queries", rejects="MHA-4", origin="softmax(dim=-2), or dim=2 of scores that were transposed")
class SoftmaxOverQueries(HandWrittenAttention):
    """Normalises the weights of a key over the queries."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        turned = [None if each is None else each.expand_as(scores).mT for each in (bias, forbidden)]
        return super().weights(scores.mT, *turned).mT


@mutant("attention-softmax-over-heads", rejects="MHA-4", origin="F.softmax without dim takes axis 0 of (M, Q, K)")
class SoftmaxOverHeads(HandWrittenAttention):
    """Normalises the weights of a pair over the heads."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        weights = (scores if bias is None else scores + bias).softmax(1)
        return weights if forbidden is None else weights.masked_fill(forbidden, 0)


@mutant("exp-without-maximum", rejects="MHA-4", origin="softmax written out: exp(s) / sum(exp(s))")
class ExpWithoutMaximum(HandWrittenAttention):
    """Takes exponentials of the scores as they are."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        powers = (scores if bias is None else scores + bias).exp()
        powers = powers if forbidden is None else powers.masked_fill(forbidden, 0)
        total = powers.sum(-1, keepdim=True)
        return powers / total.masked_fill(total == 0, 1)


@mutant("clamped-scores", rejects="MHA-4", origin="clamp(scores, -50000, 50000) of GLIP and Grounding DINO, set lower")
class ClampedScores(HandWrittenAttention):
    """Clamps scores to 20 either way, against overflow."""

    def scores(self, q: Heads, k: Heads) -> Scores:
        return super().scores(q, k).clamp(-20, 20)


@mutant("zeros-in-the-last-block", rejects="MHA-5", origin="a kernel that fills its last block of keys with zeros")
class ZerosInTheLastBlock(HandWrittenAttention):
    """Counts exp(0) for each key that is missing to a multiple of 4."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        missing = -scores.shape[-1] % 4
        filled = F.pad(scores, (0, missing))
        bias = None if bias is None else F.pad(bias.expand_as(scores), (0, missing))
        forbidden = None if forbidden is None else F.pad(forbidden, (0, missing))
        return super().weights(filled, bias, forbidden)[..., : scores.shape[-1]]


@mutant("whole-blocks-of-keys", rejects="MHA-5", origin="K // 16 iterations in place of ceil(K / 16)")
class WholeBlocksOfKeys(HandWrittenAttention):
    """Leaves out the keys beyond the last multiple of 16, where there are more than 16."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        keys = scores.shape[-1]
        beyond = torch.arange(keys) >= keys // 16 * 16
        if keys < 16 or not beyond.any():
            return super().weights(scores, bias, forbidden)
        lost = beyond.expand_as(scores)
        return super().weights(scores, bias, lost if forbidden is None else forbidden | lost)


@mutant("whole-blocks-of-queries", rejects="MHA-5", origin="a grid of Q // 16 blocks")
class WholeBlocksOfQueries(HandWrittenAttention):
    """Leaves zeros for the queries beyond the last multiple of 16, where there are more than 16."""

    def read(self, weights: Scores, v: Heads) -> Heads:
        attended = super().read(weights, v)
        beyond = torch.arange(attended.shape[2]) >= max(16, attended.shape[2] // 16 * 16)
        return attended.masked_fill(beyond[:, None], 0)


@mutant("at-most-128-keys", rejects="MHA-5", origin="one block of shared memory, sized for a sentence")
class AtMost128Keys(HandWrittenAttention):
    """Reads no key beyond the first 128."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        late = (torch.arange(scores.shape[-1]) >= 128).expand_as(scores)
        if not late.any():
            return super().weights(scores, bias, forbidden)
        return super().weights(scores, bias, late if forbidden is None else forbidden | late)


@mutant("normalised-block-by-block", rejects="MHA-5", origin="FlashAttention without the correction of earlier blocks")
class NormalisedBlockByBlock(HandWrittenAttention):
    """Gives each block of 16 keys a softmax of its own, and takes the mean of the blocks."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if scores.shape[-1] <= 16:
            return super().weights(scores, bias, forbidden)
        whole = torch.zeros_like(scores) if bias is None else bias.expand_as(scores)
        barred = torch.zeros_like(scores, dtype=torch.bool) if forbidden is None else forbidden
        pieces = zip(*(each.split(16, -1) for each in (scores, whole, barred)), strict=True)
        blocks = [super(NormalisedBlockByBlock, self).weights(*piece) for piece in pieces]
        return torch.cat(blocks, -1) / len(blocks)


@mutant("causal-if-square", rejects="MHA-6", origin="is_causal left on in a kernel made for language models")
class CausalIfSquare(HandWrittenAttention):
    """Forbids later keys where there are as many as queries."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if scores.shape[-1] != scores.shape[-2]:
            return super().weights(scores, bias, forbidden)
        later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        return super().weights(scores, bias, later if forbidden is None else forbidden | later)


@mutant("slope-over-keys", rejects="MHA-6", origin="ALiBi left on, arXiv:2108.12409")
class SlopeOverKeys(HandWrittenAttention):
    """Prefers keys of small index."""

    def scores(self, q: Heads, k: Heads) -> Scores:
        scores = super().scores(q, k)
        return scores - 0.1 * torch.arange(scores.shape[-1], dtype=scores.dtype)


@mutant("no-keys-is-an-error", rejects="MHA-7", origin="softmax written with amax, which refuses an empty axis")
class NoKeysIsAnError(HandWrittenAttention):
    """Subtracts the largest score, and there is none."""

    def scores(self, q: Heads, k: Heads) -> Scores:
        scores = super().scores(q, k)
        return scores - scores.detach().amax(-1, keepdim=True)


@mutant("no-keys-is-nan", rejects="MHA-7", origin="0 / 0 in the denominator of an online softmax")
class NoKeysIsNan(HandWrittenAttention):
    """Divides by the sum of no weights."""

    def read(self, weights: Scores, v: Heads) -> Heads:
        attended = super().read(weights, v)
        return attended if weights.shape[-1] else attended / 0
