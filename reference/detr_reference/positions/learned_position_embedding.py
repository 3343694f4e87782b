"""Learned position embedding: one vector for each column of the map and one for each row.

Source: DETR, arXiv:2005.12872, section 4.2; read with facebookresearch/detr, models/position_encoding.py
(`PositionEmbeddingLearned`), and detrex, layers/position_embedding.py. Clauses: spec chapter 08.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.every_block.parameters import with_parameters
from detr_reference.positions.config import LearnedPositionEmbeddingConfig


class LearnedPositionEmbedding(nn.Module):
    """pos of column j, row i = (col_embed[j], row_embed[i])

    Parameters, each an nn.Embedding, initialised uniformly in [0, 1):
        row_embed: (num_rows, num_pos_feats).
        col_embed: (num_columns, num_pos_feats).
    """

    def __init__(self, config: LearnedPositionEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        self.row_embed = nn.Embedding(config.num_rows, config.num_pos_feats)
        self.col_embed = nn.Embedding(config.num_columns, config.num_pos_feats)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, mask: Bool[Tensor, "batch height width"]) -> Float[Tensor, "batch channel height width"]:
        """The same for every image: of the mask only the shape counts, padding is numbered like any cell.

        Args:
            mask: True = padding.

        Returns:
            (batch, 2 * num_pos_feats, height, width), the channels of the column before those of the row, which is the
            other way round than in the sine embedding.

        Raises:
            ValueError: the map is larger than the tables, or mask is not (batch, height, width).
            TypeError: mask is not boolean.
        """
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool (True is padding), got {mask.dtype}")
        if mask.ndim != 3:
            raise ValueError(f"mask must be (batch, height, width), got {tuple(mask.shape)}")
        batch, height, width = mask.shape
        if height > self.config.num_rows or width > self.config.num_columns:
            raise ValueError(
                f"mask {tuple(mask.shape)} is a map of {height} rows and {width} columns, but the tables have "
                f"num_rows = {self.config.num_rows} and num_columns = {self.config.num_columns}"
            )
        column = self.col_embed.weight[:width].expand(height, width, -1)
        row = self.row_embed.weight[:height, None].expand(height, width, -1)
        return torch.cat((column, row), dim=-1).permute(2, 0, 1).repeat(batch, 1, 1, 1)


def build(
    config: LearnedPositionEmbeddingConfig, state_dict: Mapping[str, Tensor] | None = None
) -> LearnedPositionEmbedding:
    """The module with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(LearnedPositionEmbedding(config), state_dict)
