"""Sizes of the deformable attention module."""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_heads, check_probabilities, check_sizes


@dataclass(frozen=True)
class MSDeformAttnConfig:
    """Sizes of the deformable attention module.

    Args:
        embed_dim: channels of query, value and output; each head has embed_dim / num_heads.
        num_heads: M.
        num_levels: L, the feature maps of a call.
        num_points: P, the points that a head of a query reads on each level.
        dropout: probability of zeroing a channel of the projected output, in training only.

    Raises:
        ValueError: a size is below 1, the heads do not divide embed_dim, or dropout is no probability.
    """

    embed_dim: int = 256
    num_heads: int = 8
    num_levels: int = 4
    num_points: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_heads(self)
        check_sizes(self, "num_levels", "num_points")
        check_probabilities(self, "dropout")
