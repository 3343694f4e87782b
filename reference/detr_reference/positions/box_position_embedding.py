"""Sine position embedding of boxes: the query's position in the decoders of Conditional DETR, DAB-DETR and DINO.

Source: Conditional DETR, arXiv:2108.06152 (points), DAB-DETR, arXiv:2201.12329, section 4.2 (boxes); read with
IDEA-Research/DINO, models/dino/utils.py (`gen_sineembed_for_position`), and detrex, layers/position_embedding.py
(`get_sine_pos_embed`). Clauses: spec chapter 08.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from detr_reference.positions.sine_position_embedding import sine_waves

Y, X, W, H = 1, 0, 2, 3  # coordinates of a box in the order of the channels


def box_position_embedding(
    boxes: Float[Tensor, "*query coordinate"], *, num_pos_feats: int = 128, temperature: float = 10000.0
) -> Float[Tensor, "*query channel"]:
    """pos = (waves(2 pi y), waves(2 pi x)) of points, and waves(2 pi w), waves(2 pi h) after them of boxes

    Args:
        boxes: (x, y) or (x, y, w, h), relative to the image, already after any sigmoid. Any number is allowed, also
            outside [0, 1].
        num_pos_feats: channels for each coordinate, an even number.
        temperature: of the wavelengths, see `sine_waves`.

    Returns:
        (..., 2 * num_pos_feats) or (..., 4 * num_pos_feats) in the dtype of boxes. It is computed in float32 or wider:
        in bfloat16, 2 pi x alone would be off by up to 0.016.

    Raises:
        ValueError: the last axis is neither 2 nor 4, num_pos_feats is odd or below 2, or temperature is not positive.
        TypeError: boxes are not floating.
    """
    if not boxes.is_floating_point():
        raise TypeError(f"boxes must be floating, got {boxes.dtype}")
    if boxes.ndim == 0 or boxes.shape[-1] not in (2, 4):
        raise ValueError(f"boxes must be (..., 2) or (..., 4), got {tuple(boxes.shape)}")
    order = (Y, X, W, H)[: boxes.shape[-1]]
    position = 2 * math.pi * boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    waves = [sine_waves(position[..., coordinate], num_pos_feats, temperature) for coordinate in order]
    return torch.cat(waves, dim=-1).to(boxes.dtype)
