"""Multi-head attention, one overridable step after another.

It shares only parameter names and configuration with the reference. The unchanged module is a twin; the mutants and
the other twins override one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_reference.attention.config import MultiheadAttentionConfig

OPERATION = "multihead_attention"

Tokens = Float[Tensor, "batch token embed"]
Heads = Float[Tensor, "batch head token channel"]
Scores = Float[Tensor, "batch head query key"]
Pairs = Bool[Tensor, "batch head query key"]
Padding = Bool[Tensor, "batch key"]


class Inputs(NamedTuple):
    """What the parts of the module see, positions included."""

    asking: Tokens
    compared: Tokens
    averaged: Tokens
    identity: Tokens


class Call(NamedTuple):
    """The arguments as they came."""

    query: Tokens
    key: Tokens | None
    value: Tokens | None
    identity: Tokens | None
    query_pos: Tokens | None
    key_pos: Tokens | None


@twin("attention-by-hand", operation=OPERATION, origin="detrex, layers/attention.py, around torch's module")
class HandWrittenAttention(nn.Module):
    """Three projections, a product, a softmax over what is not forbidden, a product, a projection."""

    def __init__(self, config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        self.heads, self.size = config.num_heads, config.embed_dim // config.num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.embed_dim, config.embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.embed_dim))
        self.out_proj = nn.Linear(config.embed_dim, config.embed_dim)
        with torch.no_grad():
            self.initialise()
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def initialise(self) -> None:
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.out_proj.bias.zero_()

    # The call, step by step.

    def forward(
        self,
        query: Tokens,
        key: Tokens | None = None,
        value: Tokens | None = None,
        identity: Tokens | None = None,
        query_pos: Tokens | None = None,
        key_pos: Tokens | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Padding | None = None,
    ) -> Tokens:
        call = Call(query, key, value, identity, query_pos, key_pos)
        inputs = self.inputs(call)
        self.check(inputs, call, attn_mask, key_padding_mask)
        q, k, v = self.projections(self.cleared(inputs, key_padding_mask))
        scores = self.scores(q, k)
        weights = self.dropped_weights(self.weights(scores, *self.masks(scores, attn_mask, key_padding_mask)))
        return self.result(self.join(self.read(weights, v)), inputs.identity)

    def inputs(self, call: Call) -> Inputs:
        key, key_pos = self.key(call), self.key_position(call)
        return Inputs(
            asking=call.query if call.query_pos is None else call.query + call.query_pos,
            compared=key if key_pos is None else key + key_pos,
            averaged=self.value(call),
            identity=self.identity(call),
        )

    def key(self, call: Call) -> Tokens:
        return call.query if call.key is None else call.key

    def value(self, call: Call) -> Tokens:
        return self.key(call) if call.value is None else call.value

    def identity(self, call: Call) -> Tokens:
        return call.query if call.identity is None else call.identity

    def key_position(self, call: Call) -> Tokens | None:
        same = call.query_pos is not None and call.query_pos.shape == self.key(call).shape
        return call.query_pos if call.key_pos is None and same else call.key_pos

    def check(self, inputs: Inputs, call: Call, attn_mask: Tensor | None, padding: Padding | None) -> None:
        """Broadcasting would accept much of what is wrong."""
        (batch, queries, _), keys = call.query.shape, self.key(call).shape[1]
        right = {
            "query_pos": call.query_pos is None or call.query_pos.shape == call.query.shape,
            "key_pos": call.key_pos is None or call.key_pos.shape == self.key(call).shape,
            "value": inputs.averaged.shape == self.key(call).shape,
            "identity": inputs.identity.shape == call.query.shape,
            "attn_mask": attn_mask is None or attn_mask.shape in {(queries, keys), (batch * self.heads, queries, keys)},
            "key_padding_mask": padding is None or padding.shape == (batch, keys),
        }
        if not all(right.values()):
            wrong = [name for name, well in right.items() if not well]
            raise ValueError(f"shapes disagree: {', '.join(wrong)}")

    def cleared(self, inputs: Inputs, padding: Padding | None) -> Inputs:
        """Padding is not to spread NaN."""
        if padding is None:
            return inputs
        valid = ~padding[..., None]
        compared, averaged = (torch.where(valid, each, 0) for each in (inputs.compared, inputs.averaged))
        return inputs._replace(compared=compared, averaged=averaged)

    def projections(self, inputs: Inputs) -> list[Heads]:
        thirds = zip(inputs[:3], self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        return [self.split(F.linear(*third)) for third in thirds]

    def split(self, projected: Tokens) -> Heads:
        batch, length, _ = projected.shape
        return projected.reshape(batch, length, self.heads, self.size).permute(0, 2, 1, 3)

    def scores(self, q: Heads, k: Heads) -> Scores:
        return (q * self.scale()) @ k.mT

    def scale(self) -> float:
        return self.size**-0.5

    def masks(
        self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None
    ) -> tuple[Tensor | None, Pairs | None]:
        """What is added to the scores, and which pairs count nothing."""
        if attn_mask is None and padding is None:
            return None, None
        forbidden = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        bias = None
        if attn_mask is not None:
            mask = self.by_head(attn_mask, scores)
            if attn_mask.dtype == torch.bool:
                forbidden = forbidden | mask
            else:
                bias, forbidden = mask, forbidden | mask.isneginf()
        if padding is not None:
            forbidden = forbidden | self.padded_pairs(padding, scores)
        return bias, forbidden

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        return attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(scores.shape)

    def padded_pairs(self, padding: Padding, scores: Scores) -> Pairs:
        return padding[:, None, None].expand(scores.shape)

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if bias is not None:
            scores = scores + bias
        if forbidden is None:
            return scores.softmax(-1)
        nothing = forbidden.all(-1, keepdim=True)
        return scores.masked_fill(forbidden, -torch.inf).masked_fill(nothing, 0).softmax(-1).masked_fill(forbidden, 0)

    def dropped_weights(self, weights: Scores) -> Scores:
        return F.dropout(weights, self.config.attn_drop, self.training)

    def read(self, weights: Scores, v: Heads) -> Heads:
        return weights @ v

    def join(self, attended: Heads) -> Tokens:
        return attended.permute(0, 2, 1, 3).flatten(2)

    def result(self, joined: Tokens, identity: Tokens) -> Tokens:
        return identity + F.dropout(self.out_proj(joined), self.config.proj_drop, self.training)
