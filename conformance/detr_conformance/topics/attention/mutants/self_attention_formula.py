"""Mutants of self-attention: comparing, weighing, reading (SA-1 to SA-10)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.self_attention import HandWrittenSelfAttention, Heads, Logits, Tokens

Projected = Float[Tensor, "batch token three_embeds"]
Parts = tuple[Heads, Heads, Heads]


@mutant("self-query-key-swapped", rejects="SA-1", operation="self_attention", origin="k, q, v = qkv.unbind(0)")
class QueryKeySwapped(HandWrittenSelfAttention):
    """Takes the first third for the key and the second for the query."""

    def parts(self, projected: Projected) -> Parts:
        key, query, value = super().parts(projected)
        return query, key, value


@mutant(
    "self-key-value-swapped",
    rejects="SA-1",
    operation="self_attention",
    origin="q, v, k, as in fused cross-attention weights",
)
class KeyValueSwapped(HandWrittenSelfAttention):
    """Takes the second third for the value and the third one for the key."""

    def parts(self, projected: Projected) -> Parts:
        query, value, key = super().parts(projected)
        return query, key, value


@mutant(
    "self-heads-before-parts",
    rejects="SA-2",
    operation="self_attention",
    origin="GPT-NeoX and BLOOM: view(heads, 3, channels)",
)
class HeadsBeforeParts(HandWrittenSelfAttention):
    """Gives each head a run of 3 D features, its query, key and value side by side."""

    def parts(self, projected: Projected) -> Parts:
        query, key, value = projected.unflatten(-1, (self.heads, 3, self.channels)).unbind(-2)
        return query, key, value


@mutant(
    "self-channels-before-heads",
    rejects="SA-2",
    operation="self_attention",
    origin="einops pattern 'b n (d h) -> b h n d'",
)
class ChannelsBeforeHeads(HandWrittenSelfAttention):
    """Gives feature c of a third to head c % M, and joins the heads in the same way."""

    def split(self, projected: Tokens) -> Heads:
        return projected.unflatten(-1, (self.channels, self.heads)).transpose(-2, -1)

    def join(self, heads: Heads) -> Tokens:
        return heads.transpose(-2, -1).flatten(2)


@mutant("self-parts-fastest", rejects="SA-2", operation="self_attention", origin="einops pattern 'b n (h d qkv)'")
class PartsFastest(HandWrittenSelfAttention):
    """Takes every third feature for the query, its neighbours for key and value."""

    def parts(self, projected: Projected) -> Parts:
        query, key, value = projected.unflatten(-1, (self.heads, self.channels, 3)).unbind(-1)
        return query, key, value


@mutant(
    "self-unscaled",
    rejects="SA-3",
    operation="self_attention",
    origin="scale folded into weights that were never rescaled",
)
class Unscaled(HandWrittenSelfAttention):
    """Does not scale."""

    def scale(self) -> float:
        return 1.0


@mutant(
    "self-scaled-by-embed-dim", rejects="SA-3", operation="self_attention", origin="dim ** -0.5 for head_dim ** -0.5"
)
class ScaledByEmbedDim(HandWrittenSelfAttention):
    """Divides by the square root of all channels, not of a head's."""

    def scale(self) -> float:
        return float(self.config.embed_dim**-0.5)


@mutant(
    "self-scaled-twice",
    rejects="SA-3",
    operation="self_attention",
    origin="q * scale handed to a function that scales again",
)
class ScaledTwice(HandWrittenSelfAttention):
    """Divides by D instead of its square root."""

    def scale(self) -> float:
        return 1 / self.channels


@mutant(
    "self-softmax-over-queries",
    rejects="SA-4",
    operation="self_attention",
    origin="softmax(dim=-2), or over a transposed product",
)
class SoftmaxOverQueries(HandWrittenSelfAttention):
    """Normalises each key's weights over the queries."""

    def weights(self, logits: Logits) -> Logits:
        return logits.softmax(-2)


@mutant("self-softmax-over-the-heads", rejects="SA-4", operation="self_attention", origin="softmax(dim=1)")
class SoftmaxOverHeads(HandWrittenSelfAttention):
    """Normalises over the heads."""

    def weights(self, logits: Logits) -> Logits:
        return logits.softmax(1)


@mutant(
    "self-softmax-plus-one",
    rejects="SA-4",
    operation="self_attention",
    origin="softmax off by one: exp / (1 + sum exp)",
)
class SoftmaxPlusOne(HandWrittenSelfAttention):
    """Adds one to the denominator, so that a head may attend to nothing."""

    def weights(self, logits: Logits) -> Logits:
        nothing = torch.zeros_like(logits[..., :1])
        return torch.cat((logits, nothing), -1).softmax(-1)[..., :-1]


@mutant("self-exponential-overflows", rejects="SA-5", operation="self_attention", origin="exp(x) / exp(x).sum()")
class ExponentialOverflows(HandWrittenSelfAttention):
    """Writes the softmax without subtracting the maximum."""

    def weights(self, logits: Logits) -> Logits:
        powers = logits.exp()
        return powers / powers.sum(-1, keepdim=True)


@mutant(
    "self-product-overflows",
    rejects="SA-5",
    operation="self_attention",
    origin="(q @ k.transpose(-2, -1)) * scale in float16",
)
class ProductOverflows(HandWrittenSelfAttention):
    """Scales after the product, which float16 does not hold."""

    def logits(self, query: Heads, key: Heads) -> Logits:
        return torch.einsum("bqhd,bkhd->bhqk", query, key) * self.scale()


@mutant("self-heads-not-transposed", rejects="SA-6", operation="self_attention", origin="(attn @ v).reshape(B, N, C)")
class HeadsNotTransposed(HandWrittenSelfAttention):
    """Reshapes (batch, head, token, channel) without bringing the head behind the token."""

    def join(self, heads: Heads) -> Tokens:
        return heads.transpose(1, 2).reshape(*heads.shape[:2], -1)


@mutant(
    "self-heads-joined-channel-first",
    rejects="SA-6",
    operation="self_attention",
    origin="einops pattern 'b h n d -> b n (d h)'",
)
class HeadsJoinedChannelFirst(HandWrittenSelfAttention):
    """Joins the heads with the head as the fastest axis."""

    def join(self, heads: Heads) -> Tokens:
        return heads.transpose(-2, -1).flatten(2)


@mutant(
    "self-heads-averaged",
    rejects="SA-6",
    operation="self_attention",
    origin="weights averaged over the heads, as need_weights does",
)
class HeadsAveraged(HandWrittenSelfAttention):
    """Reads all heads' values with the mean of their weights."""

    def dropped(self, weights: Logits) -> Logits:
        return super().dropped(weights.mean(1, keepdim=True).expand_as(weights))


@mutant("self-no-projection", rejects="SA-7", operation="self_attention", origin="proj taken for an option of one head")
class NoProjection(HandWrittenSelfAttention):
    """Returns the joined heads."""

    def result(self, joined: Tokens) -> Tokens:
        return joined + 0 * self.proj(joined)


@mutant(
    "self-projection-transposed", rejects="SA-7", operation="self_attention", origin="x @ weight, as in JAX checkpoints"
)
class ProjectionTransposed(HandWrittenSelfAttention):
    """Multiplies by the transposed weight."""

    def result(self, joined: Tokens) -> Tokens:
        return F.linear(joined, self.proj.weight.T, self.proj.bias)


@mutant(
    "self-projection-without-bias", rejects="SA-7", operation="self_attention", origin="qkv_bias applied to both layers"
)
class ProjectionWithoutBias(HandWrittenSelfAttention):
    """Leaves out the bias of the output projection."""

    def result(self, joined: Tokens) -> Tokens:
        return F.linear(joined, self.proj.weight)


@mutant("self-bias-ignored", rejects="SA-8", operation="self_attention", origin="qkv_bias=False left from the default")
class BiasIgnored(HandWrittenSelfAttention):
    """Leaves out the bias of query, key and value."""

    def projected(self, x: Tokens) -> Projected:
        return F.linear(x, self.qkv.weight)


@mutant(
    "self-bias-of-query-only",
    rejects="SA-8",
    operation="self_attention",
    origin="q_bias kept, v_bias lost in a conversion",
)
class BiasOfQueryOnly(HandWrittenSelfAttention):
    """Adds the bias to the query alone."""

    def projected(self, x: Tokens) -> Projected:
        if self.qkv.bias is None:
            return super().projected(x)
        return F.linear(
            x, self.qkv.weight, self.qkv.bias * (torch.arange(3) == 0).repeat_interleave(self.proj.in_features)
        )


@mutant(
    "self-bias-of-value-only",
    rejects="SA-8",
    operation="self_attention",
    origin="bias taken to cancel in the softmax altogether",
)
class BiasOfValueOnly(HandWrittenSelfAttention):
    """Adds the bias to the value alone: the query's does not cancel."""

    def projected(self, x: Tokens) -> Projected:
        if self.qkv.bias is None:
            return super().projected(x)
        return F.linear(
            x, self.qkv.weight, self.qkv.bias * (torch.arange(3) == 2).repeat_interleave(self.proj.in_features)
        )


@mutant(
    "self-residual-inside",
    rejects="SA-9",
    operation="self_attention",
    origin="a block's residual written into its attention",
)
class ResidualInside(HandWrittenSelfAttention):
    """Adds the input to the output."""

    def forward(self, x: Tokens) -> Tokens:
        return x + super().forward(x)


@mutant(
    "self-normalised-query-key",
    rejects="SA-9",
    operation="self_attention",
    origin="qk_norm, a switch of timm's Attention",
)
class NormalisedQueryKey(HandWrittenSelfAttention):
    """Normalises queries and keys head by head."""

    def logits(self, query: Heads, key: Heads) -> Logits:
        sizes = (self.channels,)
        return super().logits(F.layer_norm(query, sizes), F.layer_norm(key, sizes))


@mutant("self-causal", rejects="SA-10", operation="self_attention", origin="is_causal=True of a language model")
class Causal(HandWrittenSelfAttention):
    """Hides the tokens behind each token."""

    def weights(self, logits: Logits) -> Logits:
        behind = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        return super().weights(logits.masked_fill(behind, -torch.inf))


@mutant(
    "self-without-itself",
    rejects="SA-10",
    operation="self_attention",
    origin="locality self-attention for small data sets",
)
class WithoutItself(HandWrittenSelfAttention):
    """Hides each token from itself, unless it is alone."""

    def weights(self, logits: Logits) -> Logits:
        itself = torch.eye(logits.shape[-1], dtype=torch.bool)
        return super().weights(logits if len(itself) == 1 else logits.masked_fill(itself, -torch.inf))


@mutant(
    "self-last-tile-lost",
    rejects="SA-10",
    operation="self_attention",
    origin="key tiles of 32, the incomplete one skipped",
)
class LastTileLost(HandWrittenSelfAttention):
    """Attends to whole tiles of 32 keys only, where there are more than one."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        length = key.shape[1] // 32 * 32 if key.shape[1] > 32 else key.shape[1]
        return super().attend(query, key[:, :length], value[:, :length])
