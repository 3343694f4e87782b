"""Multi-head attention, with the frame that DETR's family puts around it: positions, masks, identity.

Source: Attention Is All You Need, arXiv:1706.03762, section 3.2, and DETR, arXiv:2005.12872, appendix A.1; read with
detrex, layers/attention.py, and torch, nn/functional.py (multi_head_attention_forward). Clauses: spec chapter 04.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.every_block.parameters import with_parameters


class MultiheadAttention(nn.Module):
    """out = identity + proj_drop(out_proj(join_m attn_drop(softmax(q_m k_m^T / sqrt(C / M) + mask)) v_m))

    q, k and v are linear in query + query_pos, key + key_pos and value; head m has channels m * C/M to
    (m + 1) * C/M of each.

    Parameters, under torch's names (C = embed_dim, M heads):
        in_proj_weight, in_proj_bias: (3C, C) and (3C,), the projections of query, key and value, one upon another.
        out_proj: an nn.Linear, C -> C.
    """

    def __init__(self, config: MultiheadAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.embed_dim, config.embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * config.embed_dim))
        self.out_proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.attn_drop = nn.Dropout(config.attn_drop)
        self.proj_drop = nn.Dropout(config.proj_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """in_proj_weight Xavier-uniform as one (3C, C) matrix; out_proj.weight as nn.Linear has it; biases zero."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        self.out_proj.reset_parameters()
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        key: Float[Tensor, "batch key embed"] | None = None,
        value: Float[Tensor, "batch key embed"] | None = None,
        identity: Float[Tensor, "batch query embed"] | None = None,
        query_pos: Float[Tensor, "batch query embed"] | None = None,
        key_pos: Float[Tensor, "batch key embed"] | None = None,
        attn_mask: Bool[Tensor, "*slice query key"] | Float[Tensor, "*slice query key"] | None = None,
        key_padding_mask: Bool[Tensor, "batch key"] | None = None,
    ) -> Float[Tensor, "batch query embed"]:
        """Each query's mean of the projected values, weighted by how well their keys fit it, plus the identity.

        Args:
            query: what each query holds.
            key: what the queries are compared with; by default the query, before query_pos is added.
            value: what is averaged; by default the key, before key_pos is added.
            identity: what the result is added to; by default the query, before query_pos is added.
            query_pos: added to the query.
            key_pos: added to the key. By default query_pos if that has the shape of key, else nothing. The rule
                looks at shapes alone, so that a cross-attention with as many keys as queries has to give key_pos.
            attn_mask: (Q, K), or (B * M, Q, K) with head m of image b at b * M + m. Boolean: True forbids;
                floating: added to the scaled scores, -inf forbids.
            key_padding_mask: True forbids a key to all queries and heads of its image. What a padded key and its
                value hold, NaN even, has no effect.

        A query that may attend to nothing has attention zero: its output is identity + out_proj.bias.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
            TypeError: a mask is of a type that it cannot have.
        """
        key = query if key is None else key
        value = key if value is None else value
        identity = query if identity is None else identity
        if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
            key_pos = query_pos
        self._check_tensors(query, key, value, identity, query_pos, key_pos)
        self._check_masks(query, key, attn_mask, key_padding_mask)

        query = query if query_pos is None else query + query_pos
        key = key if key_pos is None else key + key_pos
        if key_padding_mask is not None:  # a weight of zero does not remove NaN
            padding = key_padding_mask[..., None]
            key, value = key.masked_fill(padding, 0), value.masked_fill(padding, 0)

        q, k, v = self._heads_of_projections(query, key, value)
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        weights = _masked_softmax(scores, self._score_bias(attn_mask, key_padding_mask, query))
        attended = self.attn_drop(weights) @ v
        joined = attended.transpose(1, 2).flatten(2)
        return identity + self.proj_drop(self.out_proj(joined))

    def _heads_of_projections(
        self,
        query: Float[Tensor, "batch query embed"],
        key: Float[Tensor, "batch key embed"],
        value: Float[Tensor, "batch key embed"],
    ) -> list[Float[Tensor, "batch head length channel"]]:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        projected = map(nn.functional.linear, (query, key, value), weights, biases)
        return [each.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2) for each in projected]

    def _score_bias(
        self, attn_mask: Tensor | None, key_padding_mask: Bool[Tensor, "batch key"] | None, query: Tensor
    ) -> Float[Tensor, "#batch #head #query key"] | None:
        """What both masks together add to the scores: -inf where a query may not attend."""
        bias = None
        if attn_mask is not None:
            slices = (1, 1) if attn_mask.ndim == 2 else (len(query), self.config.num_heads)
            bias = _additive(attn_mask, query).reshape(*slices, *attn_mask.shape[-2:])
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, query)[:, None, None]
            bias = padding if bias is None else bias + padding
        return bias

    def _check_tensors(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        identity: Tensor,
        query_pos: Tensor | None,
        key_pos: Tensor | None,
    ) -> None:
        embed = self.config.embed_dim
        for name, tensor in (("query", query), ("key", key)):
            if tensor.ndim != 3 or tensor.shape[-1] != embed:
                raise ValueError(f"{name} must be (batch, length, {embed}), got {tuple(tensor.shape)}")
        if key.shape[0] != query.shape[0]:
            raise ValueError(f"key {tuple(key.shape)} and query {tuple(query.shape)} differ in batch")
        for name, given, model, like in (
            ("value", value, "key", key),
            ("identity", identity, "query", query),
            ("query_pos", query_pos, "query", query),
            ("key_pos", key_pos, "key", key),
        ):
            if given is not None and given.shape != like.shape:
                raise ValueError(f"{name} {tuple(given.shape)} must have the shape of {model}, {tuple(like.shape)}")

    def _check_masks(
        self, query: Tensor, key: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None
    ) -> None:
        (batch, queries, _), keys, heads = query.shape, key.shape[1], self.config.num_heads
        if attn_mask is not None:
            if attn_mask.shape not in {(queries, keys), (batch * heads, queries, keys)}:
                raise ValueError(
                    f"attn_mask must be (query, key) = {(queries, keys)} or (batch * heads, query, key) = "
                    f"{(batch * heads, queries, keys)}, got {tuple(attn_mask.shape)}"
                )
            if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
                raise TypeError(f"attn_mask must be bool (True forbids) or floating, got {attn_mask.dtype}")
        if key_padding_mask is not None:
            if key_padding_mask.shape != (batch, keys):
                raise ValueError(
                    f"key_padding_mask must be (batch, key) = {(batch, keys)}, got {tuple(key_padding_mask.shape)}"
                )
            if key_padding_mask.dtype != torch.bool:
                raise TypeError(f"key_padding_mask must be bool (True is padding), got {key_padding_mask.dtype}")


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """-inf where a boolean mask is True, 0 elsewhere; a floating mask as it is."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def _masked_softmax(
    scores: Float[Tensor, "batch head query key"], bias: Float[Tensor, "#batch #head #query key"] | None
) -> Float[Tensor, "batch head query key"]:
    """The softmax over keys, and zero, with zero gradients, in a row of which every key is forbidden."""
    if bias is None:
        return scores.softmax(-1)
    nothing = (bias == -torch.inf).all(-1, keepdim=True)
    return (scores + bias).masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)


def build(config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> MultiheadAttention:
    """The module with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(MultiheadAttention(config), state_dict)
