"""Several feature maps as one sequence of cells, with all that deformable attention has to know about them.

Source: Deformable DETR, arXiv:2010.04159, section 4.1; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (the beginning of DeformableTransformer.forward), and detrex,
projects/dino/modeling/dino_transformer.py. See spec chapter 18.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_reference.deformable_attention.core import level_starts
from detr_reference.features.padding_mask import resize_padding_mask
from detr_reference.features.valid_ratios import valid_ratios
from detr_reference.positions.level_position_embedding import level_position_embedding
from detr_reference.positions.sine_position_embedding import sine_position_embedding


class FeatureLevels(NamedTuple):
    """L maps, each flattened row by row, one after another: S cells in all.

    Attributes:
        features: (B, S, C), what the cells hold.
        positions: (B, S, C), sine embedding of each cell plus the vector of its level.
        padding: (B, S), True where a cell is padding.
        spatial_shapes: (L, 2), (H, W) of each map.
        sizes: the same as numbers.
        level_start_index: (L,), the cell at which each map begins.
        valid_ratios: (B, L, 2), the part of each map's (width, height) that is image, in float32 or wider.
    """

    features: Float[Tensor, "batch cell embed"]
    positions: Float[Tensor, "batch cell embed"]
    padding: Bool[Tensor, "batch cell"]
    spatial_shapes: Int[Tensor, "level 2"]
    sizes: tuple[tuple[int, int], ...]
    level_start_index: Int[Tensor, " level"]
    valid_ratios: Float[Tensor, "batch level 2"]


def flatten_levels(
    maps: Sequence[Float[Tensor, "batch embed _height _width"]],
    mask: Bool[Tensor, "batch height width"],
    level_embeds: Float[Tensor, "level embed"],
    *,
    temperature: float,
    offset: float,
) -> FeatureLevels:
    """cell (i, j) of level l -> token l_start + i W_l + j, at position (waves(y), waves(x)) + level_embeds[l]

    Args:
        maps: the levels, all of one number of channels.
        mask: of the images, True = padding.
        level_embeds: one vector a level.
        temperature, offset: of the sine embedding, see `sine_position_embedding`.

    Raises:
        ValueError: mask does not fit the maps' batch, or an image lies wholly in the padding.
        TypeError: mask is not boolean.
    """
    features = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
    sizes = tuple((each.shape[-2], each.shape[-1]) for each in maps)
    masks = [resize_padding_mask(mask, size) for size in sizes]
    spatial_shapes = torch.tensor(sizes, device=features.device)
    sines = [
        sine_position_embedding(
            level, num_pos_feats=features.shape[-1] // 2, temperature=temperature, offset=offset, dtype=features.dtype
        )
        for level in masks
    ]
    positions = torch.cat([each.flatten(2).transpose(1, 2) for each in sines], dim=1)
    wide = torch.promote_types(features.dtype, torch.float32)
    return FeatureLevels(
        features=features,
        positions=level_position_embedding(positions, spatial_shapes, level_embeds),
        padding=torch.cat([level.flatten(1) for level in masks], dim=1),
        spatial_shapes=spatial_shapes,
        sizes=sizes,
        level_start_index=level_starts(spatial_shapes),
        valid_ratios=torch.stack([valid_ratios(level, dtype=wide) for level in masks], dim=1),
    )
