"""Sizes of the attentions."""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_heads, check_probabilities


@dataclass(frozen=True)
class MultiheadAttentionConfig:
    """Sizes of multi-head attention.

    Args:
        embed_dim: C, the channels of query, key, value and output; each head has embed_dim / num_heads.
        num_heads: M.
        attn_drop: probability of zeroing an attention weight, in training only.
        proj_drop: probability of zeroing a channel of the projected output, in training only.

    Raises:
        ValueError: a size is below 1, the heads do not divide embed_dim, or a dropout is no probability.
    """

    embed_dim: int = 256
    num_heads: int = 8
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self)
        check_probabilities(self, "attn_drop", "proj_drop")


@dataclass(frozen=True)
class SelfAttentionConfig:
    """Sizes of self-attention.

    Args:
        embed_dim: channels of input and output; each head has embed_dim / num_heads.
        num_heads: M.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        attn_drop: probability of zeroing an attention weight, in training only.
        proj_drop: probability of zeroing a channel of the output, in training only.

    Raises:
        ValueError: a size is below 1, the heads do not divide embed_dim, or a dropout is no probability.
    """

    embed_dim: int = 768
    num_heads: int = 12
    qkv_bias: bool = False
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self)
        check_probabilities(self, "attn_drop", "proj_drop")


@dataclass(frozen=True)
class CrossAttentionConfig(SelfAttentionConfig):
    """The fields of `SelfAttentionConfig`; qkv_bias is about all three of q, k and v."""
