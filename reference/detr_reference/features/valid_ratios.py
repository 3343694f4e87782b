"""Which part of a padded level the image fills.

Images of a batch are padded on the right and at the bottom to one size. The valid ratio of a level, (valid width / W,
valid height / H), leads from coordinates relative to the image to those relative to the padded map. Levels round the
border of the image to different cells, so each has a ratio of its own.

Source: Deformable DETR, arXiv:2010.04159, section 4.1; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (`get_valid_ratio`). Clauses: spec chapter 11.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def valid_ratios(
    mask_l: Bool[Tensor, "batch height width"], *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch 2"]:
    """ratio = (valid columns / W, valid rows / H) of one level, counted along its first row and column

    Args:
        mask_l: the level's padding mask, True = padding; the image fills the upper left corner.
        dtype: of the ratios, which are computed in float32 or wider.

    Returns:
        (w, h), in (0, 1].

    Raises:
        ValueError: no cell of the first row or of the first column belongs to the image. Its ratio would be
            0, and points divided by it NaN. Masks shrunk by nearest-neighbour interpolation keep their first
            cell, so this is nearly always a mask of the wrong polarity. Public implementations do not check.
            Inside torch.compile nor does this, and the ratio is 0.
        TypeError: mask_l is not boolean.
    """
    if mask_l.dtype != torch.bool:
        raise TypeError(f"mask_l must be bool (True is padding), got {mask_l.dtype}")
    if mask_l.ndim != 3:
        raise ValueError(f"mask_l must be (batch, height, width), got {tuple(mask_l.shape)}")
    valid = ~mask_l
    height, width = mask_l.shape[1:]
    columns, rows = valid[:, :1].sum((1, 2)), valid[:, :, :1].sum((1, 2))
    valid_size = torch.stack((columns, rows), dim=-1).to(torch.promote_types(dtype, torch.float32))
    ratios = valid_size / torch.tensor((width, height), dtype=valid_size.dtype, device=mask_l.device)
    if not torch.compiler.is_compiling() and not (ratios > 0).all():
        image = (ratios > 0).all(-1).tolist().index(False)
        raise ValueError(
            f"mask_l {tuple(mask_l.shape)} marks the whole first row or column of image {image} as padding; "
            "True must mean padding, and the image must lie in the upper left corner"
        )
    return ratios.to(dtype)
