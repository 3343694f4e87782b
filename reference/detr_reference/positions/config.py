"""Sizes of the learned position embedding."""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_sizes


@dataclass(frozen=True)
class LearnedPositionEmbeddingConfig:
    """Sizes of the two tables of the learned position embedding.

    Args:
        num_pos_feats: channels for each of the two axes.
        num_rows: the tallest map that can be embedded.
        num_columns: the widest one.

    Raises:
        ValueError: a size is below 1.
    """

    num_pos_feats: int = 128
    num_rows: int = 50
    num_columns: int = 50

    def __post_init__(self) -> None:
        check_sizes(self, "num_pos_feats", "num_rows", "num_columns")
