"""Both kinds of transformer layer, one overridable step after another. Clauses: spec chapter 7.

It shares only parameter names and configuration with the reference. The unchanged layers are twins; the mutants and the
other twins of transformer layers override one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_reference.transformer.config import TransformerLayerConfig

ENCODER, DECODER = "encoder_layer", "decoder_layer"

Tokens = Float[Tensor, "batch token embed"]
Mask = Bool[Tensor, "query key"] | Float[Tensor, "query key"] | None
Padding = Bool[Tensor, "batch key"] | None
State = Mapping[str, Tensor] | None


@dataclass
class Call:
    """The arguments of a call."""

    query: Tokens
    key: Tokens | None
    query_pos: Tokens | None
    key_pos: Tokens | None
    attn_mask: Mask
    cross_attn_mask: Mask
    query_padding: Padding
    key_padding: Padding


@dataclass
class Streams:
    """What runs through a layer."""

    stream: Tokens  # what a sublayer adds to
    seen: Tokens  # what a sublayer computes from


class Attention(nn.Module):
    """The parameters of one attention."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * embed, embed) * embed**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed))
        self.out_proj = nn.Linear(embed, embed)


class Network(nn.Module):
    """The parameters of one feed-forward network."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(embed, hidden)), nn.Linear(hidden, embed))


class HandWrittenLayer(nn.Module):
    """Runs through the order with attentions, networks and norms written out as functions."""

    def __init__(self, config: TransformerLayerConfig, state_dict: State = None) -> None:
        super().__init__()
        self.config = config
        order, embed = config.operation_order, config.embed_dim
        attentions = sum(name.endswith("attn") for name in order)
        self.attentions = nn.ModuleList(Attention(embed) for _ in range(attentions))
        self.ffns = nn.ModuleList(Network(embed, config.feedforward_dim) for _ in range(order.count("ffn")))
        self.norms = nn.ModuleList(nn.LayerNorm(embed) for _ in range(order.count("norm")))
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    # The order.

    def forward(
        self,
        query: Tokens,
        key: Tokens | None = None,
        query_pos: Tokens | None = None,
        key_pos: Tokens | None = None,
        attn_mask: Mask = None,
        cross_attn_mask: Mask = None,
        query_key_padding_mask: Padding = None,
        key_padding_mask: Padding = None,
    ) -> Tokens:
        call = self.begun(
            Call(query, key, query_pos, key_pos, attn_mask, cross_attn_mask, query_key_padding_mask, key_padding_mask)
        )
        at = Streams(call.query, call.query)
        for name, index in self.operations():
            at = self.normalised(index, at) if name == "norm" else self.sublayer(name, index, at, call)
        return self.ended(at.stream, call)

    def begun(self, call: Call) -> Call:
        return call

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        return stream

    def order(self) -> tuple[str, ...]:
        return self.config.operation_order

    def operations(self) -> Iterator[tuple[str, int]]:
        """Each operation, with the number of its parameters."""
        met = {"attn": 0, "ffn": 0, "norm": 0}
        for name in self.order():
            kind = name.removeprefix("self_").removeprefix("cross_")
            yield name, met[kind]
            met[kind] += 1

    def is_pre_norm(self) -> bool:
        return self.order()[0] == "norm"

    def normalised(self, index: int, at: Streams) -> Streams:
        seen = self.norm(index, at.seen)
        return Streams(at.stream if self.is_pre_norm() else seen, seen)

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        if name == "ffn":
            return self.added(at, self.network(index, at.seen))
        attend = self.self_attention if name == "self_attn" else self.cross_attention
        return self.added(at, attend(index, at, call))

    def added(self, at: Streams, result: Tokens) -> Streams:
        stream = at.stream + result
        return Streams(stream, stream)

    # The parameters.

    def own_attention(self, index: int) -> Attention:
        attention = self.attentions[index]
        assert isinstance(attention, Attention)
        return attention

    def weight_and_bias(self, index: int) -> tuple[Tensor, Tensor]:
        norm = self.norms[index]
        assert isinstance(norm, nn.LayerNorm)
        return norm.weight, norm.bias

    # The sublayers, without what they are added to.

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        placed = self.placed(at.seen, call.query_pos)
        return self.attention(index, placed, placed, at.seen, call.attn_mask, call.query_padding)

    def cross_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        assert call.key is not None
        query = self.placed(at.seen, call.query_pos)
        key = self.placed(call.key, self.position_of_key(call))
        return self.attention(index, query, key, call.key, call.cross_attn_mask, call.key_padding)

    def position_of_key(self, call: Call) -> Tokens | None:
        """detrex's default: that of the queries if there are as many keys."""
        if call.key_pos is not None or call.query_pos is None or call.key is None:
            return call.key_pos
        return call.query_pos if call.query_pos.shape == call.key.shape else None

    def placed(self, tokens: Tokens, position: Tokens | None) -> Tokens:
        return tokens if position is None else tokens + position

    def attention(self, index: int, query: Tokens, key: Tokens, value: Tokens, mask: Mask, padding: Padding) -> Tokens:
        own, heads = self.own_attention(index), self.config.num_heads
        weights, biases = own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3)
        if padding is not None:
            key, value = (torch.where(padding[..., None], 0, tokens) for tokens in (key, value))
        q, k, v = (
            F.linear(tokens, weight, bias).unflatten(-1, (heads, -1))
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        scores = torch.einsum("bqmd,bkmd->bmqk", q, k) / q.shape[-1] ** 0.5
        for forbidden in (mask, None if padding is None else padding[:, None, None]):
            if forbidden is not None and forbidden.dtype == torch.bool:
                scores = scores.masked_fill(self.for_heads(forbidden), -torch.inf)
            elif forbidden is not None:
                scores = scores + self.for_heads(forbidden)
        shares = self.weight_dropout(scores.softmax(-1))
        return self.output_dropout(own.out_proj(torch.einsum("bmqk,bkmd->bqmd", shares, v).flatten(2)))

    def for_heads(self, mask: Tensor) -> Tensor:
        """(Q, K), (B * M, Q, K) or (B, 1, 1, K), to broadcast over (B, M, Q, K)."""
        return mask.unflatten(0, (-1, self.config.num_heads)) if mask.ndim == 3 else mask

    def weight_dropout(self, shares: Tensor) -> Tensor:
        return F.dropout(shares, self.config.attn_drop, self.training)

    def output_dropout(self, attended: Tokens) -> Tokens:
        return F.dropout(attended, self.config.proj_drop, self.training)

    def network(self, index: int, seen: Tokens) -> Tokens:
        first, last = [part for part in self.ffns[index].modules() if isinstance(part, nn.Linear)]
        return self.network_dropout(last(self.hidden_dropout(self.activated(first(seen)))))

    def activated(self, hidden: Tokens) -> Tokens:
        return hidden.relu() if self.config.activation == "relu" else F.gelu(hidden)

    def hidden_dropout(self, hidden: Tokens) -> Tokens:
        return F.dropout(hidden, self.config.ffn_drop, self.training)

    def network_dropout(self, out: Tokens) -> Tokens:
        return F.dropout(out, self.config.ffn_drop, self.training)

    def norm(self, index: int, x: Tokens) -> Tokens:
        return F.layer_norm(x, x.shape[-1:], *self.weight_and_bias(index), self.epsilon())

    def epsilon(self) -> float:
        return self.config.layer_norm_eps


@twin("encoder-layer-by-hand", operation="encoder_layer", origin="facebookresearch/detr, models/transformer.py")
class HandWrittenEncoderLayer(HandWrittenLayer):
    """Self-attention and network, written out."""


@twin("decoder-layer-by-hand", operation="decoder_layer", origin="facebookresearch/detr, models/transformer.py")
class HandWrittenDecoderLayer(HandWrittenLayer):
    """Self-attention, cross-attention and network, written out."""
