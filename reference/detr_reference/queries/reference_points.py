"""Where deformable attention looks from: reference points on padded feature maps.

Images of a batch are padded on the right and at the bottom to one size, so a point has two sets of
coordinates: relative to the image, and relative to the padded map, which is what sampling needs. The valid
ratios of a level (`features/valid_ratios.py`) lead from the first to the second.

Source: Deformable DETR, arXiv:2010.04159, section 4.1; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (`get_reference_points`). Clauses: spec chapter 11.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def encoder_reference_points(
    spatial_shapes: Int[Tensor, "level 2"],
    valid_ratios: Float[Tensor, "batch level 2"],
) -> Float[Tensor, "batch cell level 2"]:
    """cell (column j, row i) of level l, seen in m: (j + 0.5, i + 0.5) / (vr_l * (W_l, H_l)) * vr_m

    Division by vr_l gives the cell's centre relative to the image, multiplication by vr_m its place on the
    padded map m. With m = l the two cancel: a cell refers to its own centre.

    Args:
        spatial_shapes: (H, W) of each level.
        valid_ratios: (w, h) of each image and level, all above 0.

    Returns:
        (x, y) in units of level m's width and height, cells in the order of the flattened maps, in the dtype of
        valid_ratios; computed in float32 or wider. A cell of padding may lie above 1.

    Raises:
        ValueError: the numbers of levels differ.
    """
    _check_ratios(valid_ratios)
    if spatial_shapes.shape != valid_ratios.shape[1:]:
        raise ValueError(
            f"spatial_shapes {tuple(spatial_shapes.shape)} and valid_ratios {tuple(valid_ratios.shape)} "
            "must have the same levels: (level, 2) and (batch, level, 2)"
        )
    return reference_points_of_cells([(height, width) for height, width in spatial_shapes.tolist()], valid_ratios)


def reference_points_of_cells(
    sizes: Sequence[tuple[int, int]], valid_ratios: Float[Tensor, "batch level 2"]
) -> Float[Tensor, "batch cell level 2"]:
    """`encoder_reference_points` of levels whose (H, W) are known as numbers, so that no device has to be asked."""
    ratios = valid_ratios.to(torch.promote_types(valid_ratios.dtype, torch.float32))
    levels = [_cell_centres(height, width).to(ratios) for height, width in sizes]
    on_image = [centres / ratio[:, None] for centres, ratio in zip(levels, ratios.unbind(1), strict=True)]
    return (torch.cat(on_image, dim=1)[:, :, None] * ratios[:, None]).to(valid_ratios.dtype)


def decoder_reference_points(
    reference_points: Float[Tensor, "batch query coordinate"],
    valid_ratios: Float[Tensor, "batch level 2"],
) -> Float[Tensor, "batch query level coordinate"]:
    """reference of a query in level l = (x, y) * vr_l, or (x, y, w, h) * (vr_l, vr_l)

    Args:
        reference_points: (x, y) or (x, y, w, h), relative to the image.
        valid_ratios: (w, h) of each image and level.

    Returns:
        the same in units of each padded map's width and height.

    Raises:
        ValueError: the last axis is neither 2 nor 4, or the batches differ.
    """
    _check_ratios(valid_ratios)
    if reference_points.ndim != 3 or reference_points.shape[-1] not in (2, 4):
        raise ValueError(
            f"reference_points must be (batch, query, 2) or (batch, query, 4), got {tuple(reference_points.shape)}"
        )
    if reference_points.shape[0] != valid_ratios.shape[0]:
        raise ValueError(
            f"reference_points {tuple(reference_points.shape)} and valid_ratios {tuple(valid_ratios.shape)} "
            "differ in batch"
        )
    repeats = reference_points.shape[-1] // 2
    return reference_points[:, :, None] * valid_ratios.repeat(1, 1, repeats)[:, None]


def _cell_centres(height: int, width: int) -> Float[Tensor, "cell 2"]:
    """((j + 0.5) / W, (i + 0.5) / H) of every cell, row by row, in float64."""
    x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1).flatten(0, 1)


def _check_ratios(valid_ratios: Tensor) -> None:
    if valid_ratios.ndim != 3 or valid_ratios.shape[-1] != 2:
        raise ValueError(f"valid_ratios must be (batch, level, 2) with (w, h) last, got {tuple(valid_ratios.shape)}")
