"""A tiny DINO decoder, no parameter as it was initialised, and a call of it: levels and paddings of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detr_reference.deformable_attention.core import level_starts
from detr_reference.queries.config import DINODecoderConfig
from detr_reference.queries.dino_decoder import DINODecoderWithHeads, build

BATCH, QUERIES = 2, 4
SHAPES = ((3, 5), (2, 4))
IMAGES = (((3, 4), (2, 3)), ((2, 5), (1, 4)))  # valid rows and columns of each level


def config(**changes: Any) -> DINODecoderConfig:
    sizes = {"embed_dim": 8, "num_heads": 2, "feedforward_dim": 6, "num_layers": 3, "num_levels": 2, "num_points": 3}
    return DINODecoderConfig(**{**sizes, "num_classes": 5, **changes})


def perturbed(std: float = 0.3, **changes: Any) -> DINODecoderWithHeads:
    """In float64 and evaluation mode."""
    decoder = build(config(**changes)).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * std)
    return decoder


def call(queries: int = QUERIES) -> dict[str, Any]:
    """Images of unlike sizes; queries that may not attend to some others; boxes well inside (0, 1)."""
    spatial_shapes = torch.tensor(SHAPES)
    padding = torch.cat([_padding(level).flatten(1) for level in range(len(SHAPES))], 1)
    ratios = [[(w / W, h / H) for (h, w), (H, W) in zip(image, SHAPES, strict=True)] for image in IMAGES]
    return {
        "query": torch.randn(BATCH, queries, 8, dtype=torch.float64),
        "memory": torch.randn(BATCH, padding.shape[1], 8, dtype=torch.float64),
        "reference_points": 0.2 + 0.6 * torch.rand(BATCH, queries, 4, dtype=torch.float64),
        "attn_mask": torch.ones(queries, queries, dtype=torch.bool).triu(2),
        "key_padding_mask": padding,
        "spatial_shapes": spatial_shapes,
        "level_start_index": level_starts(spatial_shapes),
        "valid_ratios": torch.tensor(ratios, dtype=torch.float64),
    }


def _padding(level: int) -> Tensor:
    mask = torch.ones(BATCH, *SHAPES[level], dtype=torch.bool)
    for image, valid in enumerate(IMAGES):
        height, width = valid[level]
        mask[image, :height, :width] = False
    return mask
