"""Level embedding: which of several flattened feature maps a cell belongs to.

Source: Deformable DETR, arXiv:2010.04159, section 4.1; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (`level_embed`). Clauses: spec chapter 08.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def level_position_embedding(
    position_embedding: Float[Tensor, "batch cell embed"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_embed: Float[Tensor, "level embed"],
) -> Float[Tensor, "batch cell embed"]:
    """pos of a cell of level l = position_embedding + level_embed[l]

    Cells of equal (x, y) on two maps have the same sine embedding; this tells them apart.

    Args:
        position_embedding: of all cells, level after level.
        spatial_shapes: (H, W) of each level; level l has H_l * W_l cells.
        level_embed: one vector a level, a parameter of the model, drawn from N(0, 1) at the beginning.

    Raises:
        ValueError: shapes disagree, or the levels do not sum up to the cells. The latter is not seen inside
            torch.compile and torch.export.
    """
    _check_shapes(position_embedding, spatial_shapes, level_embed)
    cells = position_embedding.shape[1]
    ends = spatial_shapes.prod(-1).cumsum(0)
    if not torch.compiler.is_compiling():
        _check_cells(cells, spatial_shapes)
    level = torch.searchsorted(ends, torch.arange(cells, device=ends.device), right=True)
    return position_embedding + level_embed[level]


def _check_shapes(position_embedding: Tensor, spatial_shapes: Tensor, level_embed: Tensor) -> None:
    if position_embedding.ndim != 3:
        raise ValueError(f"position_embedding must be (batch, cell, embed), got {tuple(position_embedding.shape)}")
    if spatial_shapes.ndim != 2 or spatial_shapes.shape[-1] != 2:
        raise ValueError(f"spatial_shapes must be (level, 2) with rows (H, W), got {tuple(spatial_shapes.shape)}")
    expected = (spatial_shapes.shape[0], position_embedding.shape[-1])
    if level_embed.shape != expected:
        raise ValueError(
            f"level_embed must be (level, embed) = {expected}, as spatial_shapes {tuple(spatial_shapes.shape)} and "
            f"position_embedding {tuple(position_embedding.shape)} say, got {tuple(level_embed.shape)}"
        )


def _check_cells(cells: int, spatial_shapes: Tensor) -> None:
    sizes = spatial_shapes.tolist()
    if any(side < 0 for size in sizes for side in size):
        raise ValueError(f"spatial_shapes {sizes} has a negative side")
    total = sum(height * width for height, width in sizes)
    if cells != total:
        raise ValueError(
            f"position_embedding has {cells} cells, but spatial_shapes {sizes} asks for the sum of H * W = {total}"
        )
