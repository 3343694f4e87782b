"""Self- and cross-attention by hand, one overridable step after another.

They share only parameter names and configuration with the reference. The unchanged modules are twins; the mutants and
the other twins override one step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_reference.attention.config import CrossAttentionConfig, SelfAttentionConfig

SELF = "self_attention"
CROSS = "cross_attention"

Tokens = Float[Tensor, "batch token embed"]
Heads = Float[Tensor, "batch token head channel"]
Logits = Float[Tensor, "batch head query key"]


class HandWrittenAttention(nn.Module):
    """What the two have in common: comparing, weighing, reading, joining."""

    def __init__(self, config: SelfAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = config.num_heads
        self.channels = config.embed_dim // config.num_heads
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def load(self, state_dict: Mapping[str, Tensor] | None) -> None:
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def split(self, projected: Tokens) -> Heads:
        return projected.unflatten(-1, (self.heads, self.channels))

    def attend(self, query: Heads, key: Heads, value: Heads) -> Tokens:
        weights = self.dropped(self.weights(self.logits(query, key)))
        return self.result(self.join(self.read(weights, value)))

    def scale(self) -> float:
        return float(self.channels**-0.5)

    def logits(self, query: Heads, key: Heads) -> Logits:
        return torch.einsum("bqhd,bkhd->bhqk", query * self.scale(), key)

    def weights(self, logits: Logits) -> Logits:
        return logits.softmax(-1)

    def dropped(self, weights: Logits) -> Logits:
        return F.dropout(weights, self.config.attn_drop, self.training)

    def read(self, weights: Logits, value: Heads) -> Heads:
        return torch.einsum("bhqk,bkhd->bqhd", weights.to(value.dtype), value)

    def join(self, heads: Heads) -> Tokens:
        return heads.reshape(*heads.shape[:2], self.heads * self.channels)

    def result(self, joined: Tokens) -> Tokens:
        return F.dropout(self.proj(joined), self.config.proj_drop, self.training)


@twin("self-attention-by-hand", operation=SELF, origin="einsum instead of matmul and transposition")
class HandWrittenSelfAttention(HandWrittenAttention):
    """Slices the projection into thirds and multiplies by einsum."""

    def __init__(self, config: SelfAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config)
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=config.qkv_bias)
        self.load(state_dict)

    def forward(self, x: Tokens) -> Tokens:
        return self.attend(*self.parts(self.projected(x)))

    def projected(self, x: Tokens) -> Float[Tensor, "batch token three_embeds"]:
        return self.qkv(x)

    def parts(self, projected: Float[Tensor, "batch token three_embeds"]) -> tuple[Heads, Heads, Heads]:
        query, key, value = projected.chunk(3, -1)
        return self.split(query), self.split(key), self.split(value)


@twin("cross-attention-by-hand", operation=CROSS, origin="einsum instead of matmul and transposition")
class HandWrittenCrossAttention(HandWrittenAttention):
    """Three linear layers, then einsum."""

    def __init__(self, config: CrossAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config)
        self.q = nn.Linear(config.embed_dim, config.embed_dim, bias=config.qkv_bias)
        self.k = nn.Linear(config.embed_dim, config.embed_dim, bias=config.qkv_bias)
        self.v = nn.Linear(config.embed_dim, config.embed_dim, bias=config.qkv_bias)
        self.load(state_dict)

    def forward(self, query: Tokens, key: Tokens, value: Tokens) -> Tokens:
        self.check(query, key, value)
        return self.attend(*self.projections(query, key, value))

    def check(self, query: Tokens, key: Tokens, value: Tokens) -> None:
        if value.shape != key.shape or key.shape[0] != query.shape[0]:
            raise ValueError(f"query {query.shape}, key {key.shape} and value {value.shape} do not fit")

    def projections(self, query: Tokens, key: Tokens, value: Tokens) -> tuple[Heads, Heads, Heads]:
        return self.split(self.q(query)), self.split(self.k(key)), self.split(self.v(value))
