"""Mutants of cross-attention (SA-2 to SA-5, SA-8 to SA-11, SA-14 to SA-19)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.self_attention import HandWrittenCrossAttention, Heads, Logits, Tokens

Parts = tuple[Heads, Heads, Heads]


@mutant("cross-value-from-key", rejects="SA-15", operation="cross_attention", origin="kv(memory), one tensor for both")
class ValueFromKey(HandWrittenCrossAttention):
    """Projects the key where the value belongs."""

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        return super().projections(query, key, key + 0 * value)


@mutant(
    "cross-key-from-value",
    rejects="SA-15",
    operation="cross_attention",
    origin="positions lost: the key taken from the memory",
)
class KeyFromValue(HandWrittenCrossAttention):
    """Projects the value where the key belongs."""

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        return super().projections(query, value + 0 * key, value)


@mutant(
    "cross-layers-in-order-k-q-v",
    rejects="SA-15",
    operation="cross_attention",
    origin="a checkpoint whose thirds are k, q, v",
)
class LayersOutOfOrder(HandWrittenCrossAttention):
    """Projects the query by k and the key by q."""

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        return self.split(self.k(query)), self.split(self.q(key)), self.split(self.v(value))


@mutant(
    "cross-proj-split", rejects="SA-16", operation="cross_attention", origin="the notes' reading: split proj, not qkv"
)
class ProjSplit(HandWrittenCrossAttention):
    """Gives each head a part of `proj` of its own, an equal share of its rows, and adds its bias to each."""

    def result(self, joined: Tokens) -> Tokens:
        per_head = joined.unflatten(-1, (self.heads, self.channels))
        weight = self.proj.weight.unflatten(0, (self.heads, self.channels))
        share = weight.unflatten(-1, (self.heads, self.channels))
        own = torch.stack([share[h, :, h] for h in range(self.heads)])
        return torch.einsum("bqhd,hed->bqhe", per_head, own).flatten(2) + self.proj.bias


@mutant(
    "cross-layers-split-otherwise",
    rejects="SA-16",
    operation="cross_attention",
    origin="heads interleaved in the new layers",
)
class LayersSplitOtherwise(HandWrittenCrossAttention):
    """Gives feature c of a layer to head c % M."""

    def split(self, projected: Tokens) -> Heads:
        return projected.unflatten(-1, (self.channels, self.heads)).transpose(-2, -1)


@mutant(
    "cross-as-many-keys-as-queries",
    rejects="SA-17",
    operation="cross_attention",
    origin="one length N for both, keys beyond it cut",
)
class AsManyKeysAsQueries(HandWrittenCrossAttention):
    """Sees no more keys than there are queries."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        length = query.shape[1]
        return super().attend(query, key[:, :length], value[:, :length])


@mutant(
    "cross-padded-to-the-longer",
    rejects="SA-17",
    operation="cross_attention",
    origin="keys padded with zeros and not masked",
)
class PaddedToTheLonger(HandWrittenCrossAttention):
    """Fills the keys up with zeros, which take part in the softmax."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        missing = (0, 0, 0, 0, 0, max(0, query.shape[1] - key.shape[1]))
        return super().attend(query, F.pad(key, missing), F.pad(value, missing))


@mutant(
    "cross-value-normalised",
    rejects="SA-18",
    operation="cross_attention",
    origin="a norm over the memory inside the attention",
)
class ValueNormalised(HandWrittenCrossAttention):
    """Normalises the value before projecting it."""

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        return super().projections(query, key, F.layer_norm(value, value.shape[-1:]))


@mutant(
    "cross-value-weighs",
    rejects="SA-18",
    operation="cross_attention",
    origin="gated attention: keys of large values count more",
)
class ValueWeighs(HandWrittenCrossAttention):
    """Adds the mean of each value to the logits of its key."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        logits = self.logits(query, key) + value.mean(-1).transpose(1, 2)[:, :, None]
        return self.result(self.join(self.read(self.dropped(self.weights(logits)), value)))


@mutant("cross-value-broadcast", rejects="SA-19", operation="cross_attention", origin="expand without a check")
class ValueBroadcast(HandWrittenCrossAttention):
    """Takes one value for all keys."""

    def check(self, query: Tokens, key: Tokens, value: Tokens) -> None:
        if value.shape[1] != 1:
            super().check(query, key, value)

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        return super().projections(query, key, value.expand(-1, key.shape[1], -1))


@mutant("cross-key-broadcast", rejects="SA-19", operation="cross_attention", origin="matmul broadcasts a batch of one")
class KeyBroadcast(HandWrittenCrossAttention):
    """Shows the keys of a single image to the queries of all."""

    def check(self, query: Tokens, key: Tokens, value: Tokens) -> None:
        if key.shape[0] != 1:
            super().check(query, key, value)


@mutant("cross-value-cut", rejects="SA-19", operation="cross_attention", origin="zip over keys and values")
class ValueCut(HandWrittenCrossAttention):
    """Cuts key and value to the shorter of the two."""

    def check(self, query: Tokens, key: Tokens, value: Tokens) -> None:
        length = min(key.shape[1], value.shape[1])
        super().check(query, key[:, :length], value[:, :length])

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        length = min(key.shape[1], value.shape[1])
        return super().projections(query, key[:, :length], value[:, :length])


@mutant(
    "cross-scaled-by-embed-dim", rejects="SA-3", operation="cross_attention", origin="dim ** -0.5 for head_dim ** -0.5"
)
class CrossScaledByEmbedDim(HandWrittenCrossAttention):
    """Divides by the square root of all channels, not of a head's."""

    def scale(self) -> float:
        return float(self.config.embed_dim**-0.5)


@mutant(
    "cross-softmax-over-queries",
    rejects="SA-4",
    operation="cross_attention",
    origin="slot attention: queries compete for keys",
)
class CrossSoftmaxOverQueries(HandWrittenCrossAttention):
    """Normalises each key's weights over the queries."""

    def weights(self, logits: Logits) -> Logits:
        return logits.softmax(-2)


@mutant(
    "cross-product-overflows",
    rejects="SA-5",
    operation="cross_attention",
    origin="(q @ k.transpose(-2, -1)) * scale in float16",
)
class CrossProductOverflows(HandWrittenCrossAttention):
    """Scales after the product, which float16 does not hold."""

    def logits(self, query: Heads, key: Heads) -> Logits:
        return torch.einsum("bqhd,bkhd->bhqk", query, key) * self.scale()


@mutant(
    "cross-query-bias-lost", rejects="SA-8", operation="cross_attention", origin="q made without bias, k and v with one"
)
class QueryBiasLost(HandWrittenCrossAttention):
    """Leaves out the query's bias."""

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        return self.split(F.linear(query, self.q.weight)), self.split(self.k(key)), self.split(self.v(value))


@mutant(
    "cross-adds-the-query",
    rejects="SA-9",
    operation="cross_attention",
    origin="a decoder's residual written into its attention",
)
class AddsTheQuery(HandWrittenCrossAttention):
    """Adds the query to the output."""

    def forward(self, query: Tokens, key: Tokens, value: Tokens) -> Tokens:
        return query + super().forward(query, key, value)


@mutant("cross-causal", rejects="SA-10", operation="cross_attention", origin="is_causal=True, aligned to the top left")
class CrossCausal(HandWrittenCrossAttention):
    """Hides the keys behind each query's own index."""

    def weights(self, logits: Logits) -> Logits:
        behind = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        return super().weights(logits.masked_fill(behind, -torch.inf))


@mutant(
    "cross-weights-always-dropped",
    rejects="SA-11",
    operation="cross_attention",
    origin="SDPA's dropout_p without regard to training",
)
class CrossWeightsAlwaysDropped(HandWrittenCrossAttention):
    """Drops weights in evaluation, too."""

    def dropped(self, weights: Logits) -> Logits:
        return F.dropout(weights, self.config.attn_drop)


@mutant(
    "cross-output-never-dropped", rejects="SA-12", operation="cross_attention", origin="proj_drop accepted and not used"
)
class CrossOutputNeverDropped(HandWrittenCrossAttention):
    """Never drops channels of the output."""

    def result(self, joined: Tokens) -> Tokens:
        return self.proj(joined)


@mutant("cross-key-detached", rejects="SA-14", operation="cross_attention", origin="memory.detach() for the keys")
class KeyDetached(HandWrittenCrossAttention):
    """Lets no gradient reach the key."""

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> Parts:
        return super().projections(query, key.detach() + 0 * key, value)
