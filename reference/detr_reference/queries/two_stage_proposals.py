"""Two-stage proposals: every cell of the encoder's memory proposes one box, the best of which become queries.

Source: Deformable DETR, arXiv:2010.04159, section 4.2 and appendix A.4; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py, and detrex, projects/dino/modeling/dino_transformer.py (both
`gen_encoder_output_proposals`). Clauses: spec chapter 11.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SIDE = 0.05  # of a proposal of the first level, relative to the image; it doubles with each further level
LOW, HIGH = 0.01, 0.99  # a proposal counts if all its four numbers lie strictly between


def encoder_proposals(
    memory: Float[Tensor, "batch cell embed"],
    memory_key_padding_mask: Bool[Tensor, "batch cell"],
    spatial_shapes: Int[Tensor, "level 2"],
) -> dict[str, Tensor]:
    """proposal of cell (row i, column j) of level l = logit((j + 0.5) / w, (i + 0.5) / h, 0.05 * 2^l, 0.05 * 2^l)

    w and h are the columns and rows of the level that belong to the image, so that a box is relative to the image,
    not to the padded map. A proposal is valid if its cell is not padding and its four numbers lie strictly between
    0.01 and 0.99; an invalid one is +inf, and its memory is zero, so that all of them look the same to the heads.

    Args:
        memory: the encoder's output, level after level.
        memory_key_padding_mask: True marks a cell of padding; each image fills the upper left corner of each level.
        spatial_shapes: (H, W) of each level.

    Returns:
        memory (batch, cell, embed): zero where the proposal is invalid.
        proposals (batch, cell, 4): (x, y, w, h) before the sigmoid, in the dtype of memory. They are computed in
            float32 or wider and rounded once. They carry no gradient: the box head's output is added to them.

    Raises:
        ValueError: shapes disagree, or the levels do not sum up to the cells. The latter is not seen inside
            torch.compile and torch.export.
        TypeError: memory_key_padding_mask is not boolean.
    """
    _check_arguments(memory, memory_key_padding_mask, spatial_shapes)
    boxes = cell_boxes(~memory_key_padding_mask, spatial_shapes, torch.promote_types(memory.dtype, torch.float32))
    invalid = (memory_key_padding_mask | ~((boxes > LOW) & (boxes < HIGH)).all(-1))[..., None]
    # Filled, not multiplied: padding may hold anything, and NaN * 0 is NaN.
    logits = torch.log(boxes / (1 - boxes)).masked_fill(invalid, torch.inf)
    return {"memory": memory.masked_fill(invalid, 0), "proposals": logits.to(memory.dtype)}


def cell_boxes(
    valid: Bool[Tensor, "batch cell"], spatial_shapes: Int[Tensor, "level 2"], dtype: torch.dtype
) -> Float[Tensor, "batch cell 4"]:
    """((j + 0.5) / w, (i + 0.5) / h, 0.05 * 2^l, 0.05 * 2^l) of every cell, padding included

    w and h are counted along the first row and the first column of each level. Where nothing is valid there, centres
    are infinite.
    """
    level, row, column = cell_places(spatial_shapes, valid.shape[1])
    levels = len(spatial_shapes)
    x = (column.to(dtype) + 0.5) / counted_by_level(valid & (row == 0), level, levels)
    y = (row.to(dtype) + 0.5) / counted_by_level(valid & (column == 0), level, levels)
    side = (SIDE * 2 ** level.to(dtype)).expand_as(x)
    return torch.stack((x, y, side, side), dim=-1)


def counted_by_level(
    cells: Bool[Tensor, "batch cell"], level: Int[Tensor, " cell"], levels: int
) -> Int[Tensor, "batch cell"]:
    """How many of these cells the level of each cell has."""
    counts = torch.zeros(len(cells), levels, dtype=torch.int64, device=cells.device)
    return counts.index_add(1, level, cells.long())[:, level]


def cell_places(
    spatial_shapes: Int[Tensor, "level 2"], cells: int
) -> tuple[Int[Tensor, " cell"], Int[Tensor, " cell"], Int[Tensor, " cell"]]:
    """Level, row and column of each cell of the flattened maps."""
    sizes = spatial_shapes.prod(-1)
    ends = sizes.cumsum(0)
    cell = torch.arange(cells, device=spatial_shapes.device)
    level = torch.searchsorted(ends, cell, right=True)
    width, within = spatial_shapes[level, 1], cell - (ends - sizes)[level]
    return level, within // width, within % width


def _check_arguments(memory: Tensor, mask: Tensor, spatial_shapes: Tensor) -> None:
    if memory.ndim != 3:
        raise ValueError(f"memory must be (batch, cell, embed), got {tuple(memory.shape)}")
    if mask.dtype != torch.bool:
        raise TypeError(f"memory_key_padding_mask must be bool (True is padding), got {mask.dtype}")
    if mask.shape != memory.shape[:2]:
        raise ValueError(
            f"memory_key_padding_mask {tuple(mask.shape)} must have the batch and cells of memory, "
            f"{tuple(memory.shape[:2])}"
        )
    if spatial_shapes.ndim != 2 or spatial_shapes.shape[-1] != 2:
        raise ValueError(f"spatial_shapes must be (level, 2) with rows (H, W), got {tuple(spatial_shapes.shape)}")
    if torch.compiler.is_compiling():
        return
    sizes = spatial_shapes.tolist()
    cells = sum(height * width for height, width in sizes)
    if memory.shape[1] != cells:
        raise ValueError(
            f"memory {tuple(memory.shape)} has {memory.shape[1]} cells, but spatial_shapes {sizes} asks for "
            f"the sum of H * W = {cells}"
        )
