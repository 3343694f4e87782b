"""The deformable attention module with every parameter perturbed, and calls of it that differ per image."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import level_starts
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention

CONFIG = MSDeformAttnConfig(embed_dim=12, num_heads=3, num_levels=2, num_points=4, dropout=0.1)
SHAPES = [(4, 6), (2, 51)]
CELLS = 4 * 6 + 2 * 51


def perturbed(config: MSDeformAttnConfig = CONFIG, **options: object) -> MultiScaleDeformableAttention:
    """In float64 and evaluation mode, no parameter as it was initialised: initial ones hide most defects."""
    module = MultiScaleDeformableAttention(config, **options).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return module


def padding() -> Tensor:
    """(2, CELLS): the second image is narrower and lower than the first, which is padded a little."""
    masks = []
    for height, width in SHAPES:
        mask = torch.zeros(2, height, width, dtype=torch.bool)
        mask[0, :, width - 1 :] = True
        mask[1, :, width // 2 :] = True
        mask[1, height // 2 :] = True
        masks.append(mask.flatten(1))
    return torch.cat(masks, dim=1)


def call(coordinates: int = 2, queries: int = 5, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Arguments of one call, two images: query, value, query_pos, mask, references of 2 or 4 coordinates."""
    spatial_shapes = torch.tensor(SHAPES)
    return {
        "query": torch.randn(2, queries, CONFIG.embed_dim, dtype=dtype),
        "value": torch.randn(2, CELLS, CONFIG.embed_dim, dtype=dtype),
        "query_pos": torch.randn(2, queries, CONFIG.embed_dim, dtype=dtype),
        "key_padding_mask": padding(),
        "reference_points": torch.rand(2, queries, CONFIG.num_levels, coordinates, dtype=dtype),
        "spatial_shapes": spatial_shapes,
        "level_start_index": level_starts(spatial_shapes),
    }
