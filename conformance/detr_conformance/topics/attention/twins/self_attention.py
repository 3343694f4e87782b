"""Right implementations of self- and cross-attention, each written in another way than the reference."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.attention.mutants.self_attention import (
    HandWrittenCrossAttention,
    HandWrittenSelfAttention,
    Heads,
    Logits,
    Tokens,
)
from detr_reference.attention.config import SelfAttentionConfig


def fused(query: Heads, key: Heads, value: Heads, dropout: float) -> Heads:
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2)


@twin(
    "self-attention-sdpa", operation="self_attention", origin="torch's scaled_dot_product_attention, timm's fused path"
)
class SelfAttentionSDPA(HandWrittenSelfAttention):
    """Leaves logits, softmax and reading to scaled_dot_product_attention."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        drop = self.config.attn_drop if self.training else 0.0
        return self.result(self.join(fused(query, key, value, drop)))


@twin("cross-attention-sdpa", operation="cross_attention", origin="torch's scaled_dot_product_attention")
class CrossAttentionSDPA(HandWrittenCrossAttention):
    """Leaves logits, softmax and reading to scaled_dot_product_attention."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        drop = self.config.attn_drop if self.training else 0.0
        return self.result(self.join(fused(query, key, value, drop)))


@twin(
    "self-attention-in-chunks", operation="self_attention", origin="memory-efficient attention, a few queries at a time"
)
class SelfAttentionInChunks(HandWrittenSelfAttention):
    """Answers two queries at a time."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        return torch.cat([super(SelfAttentionInChunks, self).attend(few, key, value) for few in query.split(2, 1)], 1)


@twin(
    "cross-attention-online-softmax",
    operation="cross_attention",
    origin="FlashAttention: keys in tiles, maximum and sum kept",
)
class CrossAttentionOnline(HandWrittenCrossAttention):
    """Reads the keys in tiles of three, rescaling what was read whenever a larger logit turns up."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        if self.training:  # dropout needs all weights at once
            return super().attend(query, key, value)
        wide = torch.promote_types(query.dtype, torch.float32)
        query, key, value = (part.to(wide) for part in (query, key, value))
        largest = torch.full((*query.shape[:3], 1), -torch.inf, dtype=wide)
        total, read = torch.zeros_like(largest), torch.zeros_like(query)
        for some, theirs in zip(key.split(3, 1), value.split(3, 1), strict=True):
            logits = self.logits(query, some).transpose(1, 2)
            larger = torch.maximum(largest, logits.detach().amax(-1, keepdim=True))
            powers, shrink = (logits - larger).exp(), (largest - larger).exp()
            total = total * shrink + powers.sum(-1, keepdim=True)
            read = read * shrink + torch.einsum("bqhk,bkhd->bqhd", powers, theirs)
            largest = larger
        return self.result(self.join((read / total).to(self.proj.weight.dtype)))


@twin(
    "self-attention-wide-inside",
    operation="self_attention",
    origin="softmax and products in float32, whatever the dtype",
)
class SelfAttentionWide(HandWrittenSelfAttention):
    """Computes between the projections in float32 or better."""

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        wide = torch.promote_types(query.dtype, torch.float32)
        weights = self.dropped(self.weights(self.logits(query.to(wide), key.to(wide))))
        read = torch.einsum("bhqk,bkhd->bqhd", weights, value.to(wide))
        return self.result(self.join(read).to(query.dtype))


@twin(
    "self-attention-in-three-layers",
    operation="self_attention",
    origin="transformers' ViT: separate query, key and value",
)
class SelfAttentionInThreeLayers(HandWrittenSelfAttention):
    """Keeps three linear layers instead of one, and says where their rows belong."""

    def __init__(self, config: SelfAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config, state_dict)
        self.layers = [nn.Linear(config.embed_dim, config.embed_dim, config.qkv_bias) for _ in range(3)]
        self.thirds = nn.ModuleList(self.layers).to(self.qkv.weight.dtype)
        with torch.no_grad():
            for index, layer in enumerate(self.layers):
                layer.weight.copy_(self.qkv.weight.chunk(3)[index])
                if config.qkv_bias:
                    layer.bias.copy_(self.qkv.bias.chunk(3)[index])
        del self.qkv

    def projected(self, x: Tokens) -> Float[Tensor, "batch token three_embeds"]:
        return torch.cat([layer(x) for layer in self.layers], -1)

    def spec_parameters(self) -> dict[str, Tensor | tuple[Tensor, ...]]:
        parts = ("weight", "bias") if self.config.qkv_bias else ("weight",)
        fused = {f"qkv.{part}": tuple(getattr(layer, part) for layer in self.layers) for part in parts}
        return {**fused, "proj.weight": self.proj.weight, "proj.bias": self.proj.bias}


@twin(
    "self-attention-without-key-bias",
    operation="self_attention",
    origin="BEiT: the key's bias shifts all logits of a query alike",
)
class WithoutKeyBias(HandWrittenSelfAttention):
    """Multiplies the key's bias by zero."""

    def projected(self, x: Tokens) -> Float[Tensor, "batch token three_embeds"]:
        if self.qkv.bias is None:
            return super().projected(x)
        query, key, value = self.qkv.bias.chunk(3)
        return F.linear(x, self.qkv.weight, torch.cat((query, key * 0, value)))


@twin("cross-attention-folded", operation="cross_attention", origin="heads folded into the batch, bmm")
class CrossAttentionFolded(HandWrittenCrossAttention):
    """Makes every head an image of its own, and scales both sides by the fourth root."""

    def logits(self, query: Heads, key: Heads) -> Logits:
        root = self.scale() ** 0.5
        asks, answers = ((root * part).transpose(1, 2).flatten(0, 1) for part in (query, key))
        return torch.bmm(asks, answers.transpose(1, 2)).unflatten(0, (-1, self.heads))

    def read(self, weights: Logits, value: Heads) -> Heads:
        read = torch.bmm(weights.flatten(0, 1).to(value.dtype), value.transpose(1, 2).flatten(0, 1))
        return read.unflatten(0, (-1, self.heads)).transpose(1, 2)
