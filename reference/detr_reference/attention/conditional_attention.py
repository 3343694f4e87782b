"""Attention with content and position apart: projections of their own, joined by a sum or side by side.

Source: Conditional DETR, arXiv:2108.06152, section 3.3, and DAB-DETR, arXiv:2201.12329, section 4; read with
IDEA-Research/DAB-DETR, models/DAB_DETR/transformer.py, and detrex, layers/attention.py (ConditionalSelfAttention,
ConditionalCrossAttention), whose parameter names are kept. Chapter 17.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class ConditionalSelfAttention(nn.Module):
    """out = x + out_proj(attend(Wqc x + Wqp pos, Wkc x + Wkp pos, Wv x))

    Parameters, each an nn.Linear, C -> C: query_content_proj, query_pos_proj, key_content_proj, key_pos_proj,
    value_proj, out_proj.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_content_proj = nn.Linear(embed_dim, embed_dim)
        self.query_pos_proj = nn.Linear(embed_dim, embed_dim)
        self.key_content_proj = nn.Linear(embed_dim, embed_dim)
        self.key_pos_proj = nn.Linear(embed_dim, embed_dim)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        query_pos: Float[Tensor, "batch query embed"],
        attn_mask: Bool[Tensor, "query query"] | None = None,
    ) -> Float[Tensor, "batch query embed"]:
        """Each query's view of the others, added to it; attn_mask: True forbids."""
        q = self.query_content_proj(query) + self.query_pos_proj(query_pos)
        k = self.key_content_proj(query) + self.key_pos_proj(query_pos)
        return query + self.out_proj(attend(q, k, self.value_proj(query), self.num_heads, attn_mask))


class ConditionalCrossAttention(nn.Module):
    """out = x + out_proj(attend([Wqc x, Wqs sine], [Wkc memory, Wkp pos], Wv memory)), [a, b] side by side in each head

    So a score is the sum of how well contents fit and how well places fit, and no query content is compared with a
    position. The first layer, whose queries have no content yet, adds positions to the contents, too, as DETR does:

        [Wqc x + Wqp query_pos, Wqs sine], [Wkc memory + Wkp pos, Wkp pos]

    Parameters, each an nn.Linear, C -> C: query_content_proj, query_pos_sine_proj, key_content_proj, key_pos_proj,
    value_proj, out_proj; and query_pos_proj, in the first layer only.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, first: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_content_proj = nn.Linear(embed_dim, embed_dim)
        self.query_pos_proj = nn.Linear(embed_dim, embed_dim) if first else None
        self.query_pos_sine_proj = nn.Linear(embed_dim, embed_dim)
        self.key_content_proj = nn.Linear(embed_dim, embed_dim)
        self.key_pos_proj = nn.Linear(embed_dim, embed_dim)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        memory: Float[Tensor, "batch cell embed"],
        query_pos: Float[Tensor, "batch query embed"],
        query_sine: Float[Tensor, "batch query embed"],
        memory_pos: Float[Tensor, "batch cell embed"],
        key_padding_mask: Bool[Tensor, "batch cell"],
    ) -> Float[Tensor, "batch query embed"]:
        """What each query gathers from the image, added to it.

        Args:
            query: what each query holds.
            memory: what each cell holds.
            query_pos: learned from the query's box; read by the first layer alone.
            query_sine: sine embedding of the query's centre, already scaled.
            memory_pos: sine embedding of each cell.
            key_padding_mask: True = padding, which no query sees.
        """
        memory = memory.masked_fill(key_padding_mask[..., None], 0)  # a weight of zero does not remove NaN
        content, place = self.query_content_proj(query), self.query_pos_sine_proj(query_sine)
        key_content, key_place = self.key_content_proj(memory), self.key_pos_proj(memory_pos)
        if self.query_pos_proj is not None:
            content = content + self.query_pos_proj(query_pos)
            key_content = key_content + key_place
        q, k = self._side_by_side(content, place), self._side_by_side(key_content, key_place)
        forbidden = key_padding_mask[:, None, None]
        return query + self.out_proj(attend(q, k, self.value_proj(memory), self.num_heads, forbidden))

    def _side_by_side(
        self, content: Float[Tensor, "batch length embed"], place: Float[Tensor, "batch length embed"]
    ) -> Float[Tensor, "batch length both"]:
        """Each head has its channels of the content, then its channels of the place."""
        halves = [each.unflatten(-1, (self.num_heads, -1)) for each in (content, place)]
        return torch.cat(halves, dim=-1).flatten(2)


def attend(
    query: Float[Tensor, "batch query channel"],
    key: Float[Tensor, "batch key channel"],
    value: Float[Tensor, "batch key embed"],
    num_heads: int,
    forbidden: Bool[Tensor, "*#batch #query key"] | None = None,
) -> Float[Tensor, "batch query embed"]:
    """softmax(q k^T / sqrt(d)) v in each head, d its channels of the query; a query that may see nothing gets 0

    Args:
        query, key, value: projected already; the first two may be wider than the value.
        num_heads: M; head m has the m-th of M equal parts of the channels.
        forbidden: True = may not attend; of a shape that broadcasts to (batch, head, query, key).
    """
    q, k, v = (each.unflatten(-1, (num_heads, -1)).transpose(1, 2) for each in (query, key, value))
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    if forbidden is not None:
        scores = scores.masked_fill(forbidden & ~forbidden.all(-1, keepdim=True), -torch.inf)
    weights = scores.softmax(-1)
    if forbidden is not None:
        weights = weights.masked_fill(forbidden, 0)
    return (weights @ v).transpose(1, 2).flatten(2)
