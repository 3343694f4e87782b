"""Sizes of transformer layers and stacks, and what a layer does in which order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.feed_forward.config import FeedForwardConfig

ATTENTIONS = ("self_attn", "cross_attn")
SUBLAYERS = (*ATTENTIONS, "ffn")


@dataclass(frozen=True)
class TransformerLayerConfig:
    """Sizes of a layer, and what it does in which order.

    Args:
        embed_dim: C, the channels of every token.
        num_heads: M, heads of each attention.
        feedforward_dim: F, hidden channels of each feed-forward network.
        attn_drop, proj_drop: dropouts of the attentions.
        ffn_drop: dropout of the feed-forward networks.
        activation: of the feed-forward networks, "relu" or "gelu".
        operation_order: of "self_attn", "cross_attn", "ffn" (sublayers) and "norm". The layer is pre-norm if and
            only if the first is "norm".
        layer_norm_eps: added to the variance.

    Raises:
        ValueError: a size, rate or activation is refused by the part it belongs to, layer_norm_eps is not
            positive, or no layer can be made of operation_order.
    """

    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 1024
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    ffn_drop: float = 0.0
    activation: str = "relu"
    operation_order: tuple[str, ...] = ("self_attn", "norm", "ffn", "norm")
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_order(self.operation_order)
        if not self.layer_norm_eps > 0:
            raise ValueError(f"layer_norm_eps must be positive, got {self.layer_norm_eps}")
        _ = self.attention, self.feed_forward  # the parts check their own fields

    @property
    def pre_norm(self) -> bool:
        """Whether a norm makes a view for the next sublayer, rather than replacing the stream."""
        return self.operation_order[0] == "norm"

    @property
    def attention(self) -> MultiheadAttentionConfig:
        return MultiheadAttentionConfig(self.embed_dim, self.num_heads, self.attn_drop, self.proj_drop)

    @property
    def feed_forward(self) -> FeedForwardConfig:
        return FeedForwardConfig(
            self.embed_dim, self.feedforward_dim, ffn_drop=self.ffn_drop, activation=self.activation
        )


def _check_order(order: tuple[str, ...]) -> None:
    """Refuses what is no layer: a norm needs something of its own to normalise, and in pre-norm a sublayer to feed."""
    known = (*SUBLAYERS, "norm")
    if isinstance(order, str):
        raise ValueError(f"operation_order must be a tuple of names, got the string {order!r}")
    for position, name in enumerate(order):
        if name not in known:
            raise ValueError(
                f"operation_order[{position}] is {name!r}; it must be one of {', '.join(known)} (got {order})"
            )
    if not set(SUBLAYERS) & set(order):
        raise ValueError(f"operation_order needs at least one of {', '.join(SUBLAYERS)}, got {order}")
    if ("norm", "norm") in pairwise(order):
        raise ValueError(f"operation_order has two norms in a row, the second of what is normalised already: {order}")
    if order[0] == order[-1] == "norm":
        raise ValueError(
            f"operation_order begins and ends with a norm: {order}. In a pre-norm layer, which begins with one, a norm "
            "serves the sublayer after it, and the last has none; the norm behind the last layer belongs to the stack"
        )


@dataclass(frozen=True)
class TransformerStackConfig:
    """Of what a stack consists.

    Args:
        layer: the configuration of every layer.
        num_layers: N; each layer has its own parameters.
        post_norm: whether what leaves the stack passes one final norm. DETR's post-norm encoder has none, its
            decoder has one; a pre-norm stack needs it, since its stream is never normalised inside.
        return_intermediate: return the output of every layer, each through the one final norm.

    Raises:
        ValueError: num_layers is below 1.
    """

    layer: TransformerLayerConfig
    num_layers: int = 6
    post_norm: bool = False
    return_intermediate: bool = False

    def __post_init__(self) -> None:
        if self.num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {self.num_layers}")


@dataclass(frozen=True)
class DeformableLayerConfig:
    """Sizes of a layer around deformable attention.

    Args:
        embed_dim: C, the channels of every token.
        num_heads: M, heads of each attention.
        feedforward_dim: F, hidden channels of the feed-forward network.
        num_levels: L, the feature maps of a call.
        num_points: P, the points that a head of a query reads on each level.
        dropout: of attention weights, of what both attentions add, and in the feed-forward network; in training only.
        activation: of the feed-forward network, "relu" or "gelu".

    Raises:
        ValueError: a size, rate or activation is refused by the part it belongs to.
    """

    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 1024
    num_levels: int = 4
    num_points: int = 4
    dropout: float = 0.1
    activation: str = "relu"

    def __post_init__(self) -> None:
        _ = self.self_attention, self.deformable_attention, self.feed_forward  # the parts check their own fields

    @property
    def self_attention(self) -> MultiheadAttentionConfig:
        return MultiheadAttentionConfig(self.embed_dim, self.num_heads, attn_drop=self.dropout, proj_drop=self.dropout)

    @property
    def deformable_attention(self) -> MSDeformAttnConfig:
        return MSDeformAttnConfig(self.embed_dim, self.num_heads, self.num_levels, self.num_points, self.dropout)

    @property
    def feed_forward(self) -> FeedForwardConfig:
        return FeedForwardConfig(
            self.embed_dim, self.feedforward_dim, ffn_drop=self.dropout, activation=self.activation
        )
