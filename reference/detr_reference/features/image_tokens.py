"""From one feature map to the tokens of a transformer: cells in a row, with their positions and their padding.

Source: DETR, arXiv:2005.12872, section 3.2; read with facebookresearch/detr, models/detr.py and models/transformer.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detr_reference.features.padding_mask import resize_padding_mask
from detr_reference.positions.sine_position_embedding import sine_position_embedding


class ImageTokens(NamedTuple):
    """The cells of a map, row by row.

    Args:
        features: what each cell holds.
        position: the sine embedding of each cell's place on its image.
        padding: True = the cell lies outside the image.
    """

    features: Float[Tensor, "batch cell embed"]
    position: Float[Tensor, "batch cell embed"]
    padding: Bool[Tensor, "batch cell"]


def image_tokens(
    features: Float[Tensor, "batch embed rows columns"], mask: Bool[Tensor, "batch height width"], *, temperature: float
) -> ImageTokens:
    """token i * columns + j is cell (i, j)

    Args:
        features: one map, already of the transformer's channels.
        mask: of the images, True = padding; shrunk to the map.
        temperature: of the position embedding; DETR: 10000, DAB-DETR and DN-DETR: 20.
    """
    padding = resize_padding_mask(mask, (features.shape[2], features.shape[3]))
    position = sine_position_embedding(
        padding, num_pos_feats=features.shape[1] // 2, temperature=temperature, dtype=features.dtype
    )
    return ImageTokens(features.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2), padding.flatten(1))


def check_images(images: Tensor, mask: Tensor) -> None:
    """Images are (batch, 3, height, width), and their mask is boolean and of their batch, height and width.

    Raises:
        ValueError: the shapes are others.
        TypeError: mask is not boolean.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (batch, 3, height, width), got {tuple(images.shape)}")
    if mask.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"mask must be (batch, height, width) = {(images.shape[0], *images.shape[2:])} as images are, "
            f"got {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool (True is padding), got {mask.dtype}")
