"""torch's attention in the frame of chapter 4."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.targets.attention_frame import Framed, Padding, Tokens
from detr_reference.attention.config import MultiheadAttentionConfig


class TorchModule(Framed):
    """`nn.MultiheadAttention`, with both masks as they come."""

    def __init__(self, config: MultiheadAttentionConfig, need_weights: bool) -> None:
        super().__init__(config)
        self.need_weights = need_weights
        self.attn = nn.MultiheadAttention(config.embed_dim, config.num_heads, config.attn_drop, batch_first=True)

    def attend(
        self, query: Tokens, key: Tokens, value: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Tokens:
        if attn_mask is not None and attn_mask.is_floating_point() and key_padding_mask is not None:
            # torch warns if one mask is boolean and the other is not.
            zeros = torch.zeros_like(key_padding_mask, dtype=attn_mask.dtype)
            key_padding_mask = zeros.masked_fill(key_padding_mask, -torch.inf)
        output, _ = self.attn(
            query, key, value, key_padding_mask=key_padding_mask, need_weights=self.need_weights, attn_mask=attn_mask
        )
        return output


class TorchFunction(Framed):
    """`scaled_dot_product_attention` between a projection in thirds and a projection of the result."""

    def __init__(self, config: MultiheadAttentionConfig) -> None:
        super().__init__(config)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.embed_dim, config.embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * config.embed_dim))
        self.out_proj = nn.Linear(config.embed_dim, config.embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def attend(
        self, query: Tokens, key: Tokens, value: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Tokens:
        mask = self.one_mask(query, key, attn_mask, key_padding_mask)
        thirds = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (F.linear(*third).unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2) for third in thirds)
        dropout = self.config.attn_drop if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.to(q.dtype), dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def loaded(module: Framed, state_dict: Mapping[str, Tensor] | None) -> Framed:
    """The module with copies of these parameters, whose names begin differently; None means as it is."""
    if state_dict is not None:
        module.to(next(iter(state_dict.values())))
        prefix = "attn." if isinstance(module, TorchModule) else ""
        module.load_state_dict({prefix + name: tensor for name, tensor in state_dict.items()})
    return module
