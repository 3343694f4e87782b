"""The frame of chapter 4 around an attention that has none: what the adapters for `multihead_attention` have in common.

It adds what the public modules leave to their callers, so that no verdict is about it:

- the defaults of key, value, identity and key_pos, and the addition of positions;
- the refusal of arguments whose shapes contradict each other, where the frame itself would broadcast them;
- for those that take one mask: one additive mask in place of both, -inf where either forbids;
- proj_drop, and the addition of the identity.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.attention.config import MultiheadAttentionConfig

Tokens = Float[Tensor, "batch token embed"]
Padding = Bool[Tensor, "batch key"]


class Framed(nn.Module):
    """An attention within the frame; `attend` is to be filled in."""

    def __init__(self, config: MultiheadAttentionConfig) -> None:
        super().__init__()
        self.config = config

    def attend(
        self, query: Tokens, key: Tokens, value: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Tokens:
        """Attention with positions in query and key, without identity."""
        raise NotImplementedError

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
        key = query if key is None else key
        value = key if value is None else value
        identity = query if identity is None else identity
        if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
            key_pos = query_pos
        _same_shapes(query, identity, query_pos)
        _same_shapes(key, value, key_pos)
        asking = query if query_pos is None else query + query_pos
        compared = key if key_pos is None else key + key_pos
        output = self.attend(asking, compared, value, attn_mask, key_padding_mask)
        return identity + F.dropout(output, self.config.proj_drop, self.training)

    def one_mask(
        self, query: Tokens, key: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Float[Tensor, "batch head query key"] | None:
        """Both masks as one to be added to the scores."""
        if attn_mask is None and key_padding_mask is None:
            return None
        sizes = (len(query), self.config.num_heads, query.shape[1], key.shape[1])
        mask = query.new_zeros(sizes)
        if attn_mask is not None:
            if attn_mask.shape not in (sizes[2:], (sizes[0] * sizes[1], *sizes[2:])):
                raise ValueError(f"attn_mask {tuple(attn_mask.shape)} fits neither (Q, K) nor (B * M, Q, K) of {sizes}")
            own = attn_mask.expand(sizes) if attn_mask.ndim == 2 else attn_mask.reshape(sizes)
            mask = mask.masked_fill(own, -torch.inf) if attn_mask.dtype == torch.bool else mask + own
        if key_padding_mask is not None:
            if key_padding_mask.shape != (sizes[0], sizes[3]):
                raise ValueError(f"key_padding_mask {tuple(key_padding_mask.shape)} must be {(sizes[0], sizes[3])}")
            mask = mask.masked_fill(key_padding_mask[:, None, None], -torch.inf)
        return mask


class Projected(Framed):
    """A Framed whose input projections are three Linears of the attention, and whose output projection is a fourth."""

    attention: nn.Module
    names: tuple[str, str, str, str]  # where the attention keeps them: query, key, value, output

    def linears(self) -> list[nn.Linear]:
        found = [self.get_submodule(name) for name in self.names]
        return [linear for linear in found if isinstance(linear, nn.Linear)]

    def spec_parameters(self) -> dict[str, Tensor | tuple[Tensor, ...]]:
        *three, out = self.linears()
        return {
            "in_proj_weight": tuple(linear.weight for linear in three),
            "in_proj_bias": tuple(linear.bias for linear in three),
            "out_proj.weight": out.weight,
            "out_proj.bias": out.bias,
        }

    def load(self, state_dict: Mapping[str, Tensor]) -> None:
        """Takes over parameters under the reference's names."""
        self.to(next(iter(state_dict.values())))
        with torch.no_grad():
            for name, parameters in self.spec_parameters().items():
                parts = parameters if isinstance(parameters, tuple) else (parameters,)
                for part, given in zip(parts, state_dict[name].chunk(len(parts)), strict=True):
                    part.copy_(given)


def _same_shapes(like: Tensor, *others: Tensor | None) -> None:
    for other in others:
        if other is not None and other.shape != like.shape:
            raise ValueError(f"a tensor of shape {tuple(other.shape)} must be {tuple(like.shape)} as its tokens are")
