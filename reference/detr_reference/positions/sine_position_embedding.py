"""Sine position embedding: where a cell lies on the image, as sines and cosines of many wavelengths.

Source: Attention Is All You Need, arXiv:1706.03762, section 3.5, carried over to two axes by DETR, arXiv:2005.12872,
appendix A.4; read with facebookresearch/detr, models/position_encoding.py, fundamentalvision/Deformable-DETR,
models/position_encoding.py, and detrex, layers/position_embedding.py. Clauses: spec chapter 08.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-6  # keeps a row or column without any valid cell from dividing by zero


def sine_position_embedding(
    mask: Bool[Tensor, "batch height width"],
    *,
    num_pos_feats: int = 128,
    temperature: float = 10000.0,
    offset: float = 0.0,
    normalize: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch channel height width"]:
    """pos = (waves(y), waves(x)), y = 2 pi (rows so far + offset) / (rows + 1e-6), x the same for columns

    "Rows so far" are the valid cells of the cell's own column from the top down to it, itself included; "rows" are all
    valid cells of that column. So y runs over (0, 2 pi] on the image, however much of the map is padding.

    Args:
        mask: True = padding.
        num_pos_feats: channels for each of the two axes, an even number.
        temperature: of the wavelengths, see `sine_waves`. DETR and Deformable DETR: 10000; DAB, DN and DINO: 20.
        offset: in cells; -0.5 (Deformable DETR) refers to the middle of a cell, 0 to its far border.
        normalize: divide by the valid extent; otherwise y and x are the counts themselves, without offset.
        dtype: of the result. It is computed in float32 or wider.

    Returns:
        (batch, 2 * num_pos_feats, height, width), the channels of y before those of x.

    Raises:
        ValueError: num_pos_feats is odd or below 2, temperature is not positive, or mask is not (batch, height, width).
        TypeError: mask is not boolean.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool (True is padding), got {mask.dtype}")
    if mask.ndim != 3:
        raise ValueError(f"mask must be (batch, height, width), got {tuple(mask.shape)}")
    wide = torch.promote_types(dtype, torch.float32)
    y, x = (cell_positions(mask, axis, offset, normalize, wide) for axis in (1, 2))
    waves = [sine_waves(position, num_pos_feats, temperature) for position in (y, x)]
    return torch.cat(waves, dim=-1).permute(0, 3, 1, 2).to(dtype)


def cell_positions(
    mask: Bool[Tensor, "batch height width"], axis: int, offset: float, normalize: bool, dtype: torch.dtype
) -> Float[Tensor, "batch height width"]:
    """2 pi (count + offset) / (last count + 1e-6), counting valid cells along an axis; or the bare count."""
    count = (~mask).cumsum(axis, dtype=dtype)
    if not normalize:
        return count
    last = count.narrow(axis, -1, 1) if mask.shape[axis] else count
    return 2 * math.pi * (count + offset) / (last + EPSILON)


def sine_waves(
    position: Float[Tensor, "*axes"], num_pos_feats: int, temperature: float
) -> Float[Tensor, "*axes num_pos_feats"]:
    """channels 2k and 2k + 1 = sin and cos of position / temperature ** (2k / num_pos_feats)

    Wavelengths grow geometrically from 2 pi towards 2 pi * temperature.

    Args:
        position: in radians of the first wave, in the dtype to compute in.
        num_pos_feats: number of channels n.
        temperature: T.

    Raises:
        ValueError: num_pos_feats is odd or below 2, or temperature is not positive.
    """
    if num_pos_feats < 2 or num_pos_feats % 2:
        raise ValueError(f"num_pos_feats must be even (sines and cosines come in pairs), got {num_pos_feats}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    exponent = torch.arange(0, num_pos_feats, 2, dtype=position.dtype, device=position.device) / num_pos_feats
    phase = position[..., None] / temperature**exponent
    return torch.stack((phase.sin(), phase.cos()), dim=-1).flatten(-2)
