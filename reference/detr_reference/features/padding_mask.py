"""The padding mask of a feature map, from that of the image.

Source: facebookresearch/detr, models/backbone.py (BackboneBase).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional


def resize_padding_mask(
    mask: Bool[Tensor, "batch height width"], size: tuple[int, int]
) -> Bool[Tensor, "batch rows columns"]:
    """cell (i, j) of the map has the mask of pixel (floor(i * height / rows), floor(j * width / columns))

    The nearest neighbour in torch's sense, the upper left pixel of the cell: a cell that lies on the image in part
    belongs to the image. The first pixel decides the first cell, so that an image is never lost altogether.

    Args:
        mask: of the image, True = padding.
        size: (rows, columns) of the feature map.

    Raises:
        ValueError: mask is not (batch, height, width).
        TypeError: mask is not boolean.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool (True is padding), got {mask.dtype}")
    if mask.ndim != 3:
        raise ValueError(f"mask must be (batch, height, width), got {tuple(mask.shape)}")
    return functional.interpolate(mask[None].float(), size=size, mode="nearest")[0].bool()
