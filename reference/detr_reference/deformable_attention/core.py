"""Multi-scale deformable attention: the sampling core.

Source: Deformable DETR, arXiv:2010.04159, section 4.1, eq. 3. The layout of the tensors is that of
fundamentalvision/Deformable-DETR, models/ops/functions/ms_deform_attn_func.py. Clauses: spec chapter 01.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGER = (torch.int64, torch.int32)


def ms_deform_attn(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """out[b, q, m] = sum over l, p of attention_weights[b, q, m, l, p] * bilinear(value_l[b, m], location)

    Each head of each query reads P points on each of L feature maps and sums what it reads. A location is
    (x, y), normalised: (0, 0) is the upper left corner of the upper left cell, (1, 1) the lower right corner
    of the lower right cell, so that cell i of W has its centre at (i + 0.5) / W. Cells outside a map count
    as zero. The weights are used as given.

    Args:
        value: the L maps, each flattened row by row, one after another; cell = sum of H * W.
        spatial_shapes: (H, W) of each map, in cells; a map without cells reads as zero.
        level_start_index: the cell at which each map begins.
        sampling_locations: (x, y) in units of the map's width and height; any finite number is allowed, and a
            location that is not finite reads nothing. May have a wider dtype than value.
        attention_weights: usually softmax over level and point; nothing here relies on it.

    Returns:
        The heads' outputs side by side (head m fills channels m*D to (m+1)*D), in the dtype of value; zeros
        where there is no point to read. Everything between is float32, or float64 if an argument is.

    Raises:
        ValueError: shapes disagree; the message names the argument and quotes the shapes. What spatial_shapes
            and level_start_index contain is not checked inside torch.compile and torch.export, because
            reading it would break the graph.
        TypeError: a dtype is not floating point (value, locations, weights) or not integer (the rest).
    """
    check_arguments(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)

    batch, cells, heads, channels = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    if levels * points * channels == 0:  # embedding_bag refuses empty bags and empty rows
        nothing = (value, sampling_locations, attention_weights)
        return value.new_zeros(batch, queries, heads * channels) + sum(t.flatten()[:0].sum() for t in nothing)

    compute = compute_dtype(value, sampling_locations, attention_weights)
    # Every sample becomes four rows of a table: B*S*M rows of D channels, and one of zeros for cells outside.
    # embedding_bag sums them; its backward sorts the rows' numbers, which is faster in 32 bits.
    outside = batch * cells * heads
    table = F.pad(value.to(compute).reshape(outside, channels), (0, 0, 0, 1))
    bags = (batch * queries * heads, levels * points * 4)
    integer = torch.int32 if max(outside, bags[0] * bags[1]) < 2**31 else torch.int64

    height, width = (size[:, None] for size in spatial_shapes.to(integer).unbind(-1))  # (level, 1)
    start = level_start_index.to(integer)[:, None]
    image = torch.arange(batch, device=value.device, dtype=integer)[:, None, None, None, None]
    head = torch.arange(heads, device=value.device, dtype=integer)[:, None, None]

    x, y = sampling_locations.to(compute).unbind(-1)
    x, y = x * width - 0.5, y * height - 0.5

    # A sample touches a map only strictly inside this range; comparisons with NaN are false.
    touches = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y = torch.where(touches, x, 0), torch.where(touches, y, 0)
    weight = torch.where(touches, attention_weights.to(compute), 0)

    left, top = x.detach().floor(), y.detach().floor()
    right_share, lower_share = x - left, y - top
    column, row = left.to(integer), top.to(integer)

    rows, shares = [], []
    for down, y_share in ((0, 1 - lower_share), (1, lower_share)):
        for across, x_share in ((0, 1 - right_share), (1, right_share)):
            i, j = row + down, column + across
            inside = touches & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            cell = image * cells + start + i * width + j
            rows.append(torch.where(inside, cell * heads + head, outside))
            shares.append(weight * y_share * x_share)

    bag_rows = torch.stack(rows, dim=-1).reshape(bags)
    bag_shares = torch.stack(shares, dim=-1).reshape(bags)
    output = F.embedding_bag(bag_rows, table, per_sample_weights=bag_shares, mode="sum")
    return output.reshape(batch, queries, heads * channels).to(value.dtype)


def compute_dtype(value: Tensor, sampling_locations: Tensor, attention_weights: Tensor) -> torch.dtype:
    """That of everything between: float32, or float64 if an argument is."""
    return torch.promote_types(
        torch.promote_types(value.dtype, sampling_locations.dtype),
        torch.promote_types(attention_weights.dtype, torch.float32),
    )


def level_starts(spatial_shapes: Int[Tensor, "level 2"]) -> Int[Tensor, " level"]:
    """start_l = sum over k < l of H_k * W_k: the cell at which each level begins in the flattened maps."""
    sizes = spatial_shapes.prod(-1)
    return sizes.cumsum(0) - sizes


def check_arguments(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    """Raise what `ms_deform_attn` raises for these arguments, if it does."""
    _check_dtypes(FLOATING, value=value, sampling_locations=sampling_locations, attention_weights=attention_weights)
    _check_dtypes(INTEGER, spatial_shapes=spatial_shapes, level_start_index=level_start_index)
    _check_shapes(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    check_levels(value, spatial_shapes, level_start_index)


def check_levels(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor) -> None:
    """Raise ValueError unless the levels fill the cells of value (batch, cell, ...) one after another.

    Does nothing inside torch.compile and torch.export: it reads what the two small tensors contain.
    """
    if torch.compiler.is_compiling():
        return
    sizes = spatial_shapes.tolist()
    if any(side < 0 for size in sizes for side in size):
        raise ValueError(f"spatial_shapes {sizes} has a negative side")
    *starts, total = accumulate((height * width for height, width in sizes), initial=0)
    if value.shape[1] != total:
        raise ValueError(
            f"value {tuple(value.shape)} has {value.shape[1]} cells, but spatial_shapes {sizes} "
            f"asks for the sum of H * W = {total}"
        )
    if level_start_index.tolist() != starts:
        raise ValueError(
            f"level_start_index {level_start_index.tolist()} disagrees with spatial_shapes {sizes}, "
            f"whose levels start at {starts}"
        )


def _check_dtypes(allowed: tuple[torch.dtype, ...], **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in allowed:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            raise TypeError(f"{name} must be one of {names}, got {str(tensor.dtype).removeprefix('torch.')}")


def _check_shapes(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    if value.ndim != 4:
        raise ValueError(f"value must be (batch, cell, head, channel), got shape {tuple(value.shape)}")
    if spatial_shapes.ndim != 2 or spatial_shapes.shape[-1] != 2:
        raise ValueError(f"spatial_shapes must be (level, 2) with rows (H, W), got {tuple(spatial_shapes.shape)}")
    if sampling_locations.ndim != 6 or sampling_locations.shape[-1] != 2:
        raise ValueError(
            "sampling_locations must be (batch, query, head, level, point, 2) with (x, y) last, "
            f"got {tuple(sampling_locations.shape)}"
        )
    if attention_weights.shape != sampling_locations.shape[:-1]:
        raise ValueError(
            f"attention_weights {tuple(attention_weights.shape)} must have the shape of "
            f"sampling_locations without its last axis, {tuple(sampling_locations.shape[:-1])}"
        )
    batch, _, heads, _ = value.shape
    levels = spatial_shapes.shape[0]
    if sampling_locations.shape[3] != levels:
        raise ValueError(
            f"sampling_locations {tuple(sampling_locations.shape)} has {sampling_locations.shape[3]} levels, "
            f"spatial_shapes has {levels}"
        )
    if level_start_index.shape != (levels,):
        raise ValueError(f"level_start_index must be ({levels},), got {tuple(level_start_index.shape)}")
    if sampling_locations.shape[0] != batch or sampling_locations.shape[2] != heads:
        raise ValueError(
            f"sampling_locations {tuple(sampling_locations.shape)} must agree with value "
            f"{tuple(value.shape)} in batch ({batch}) and heads ({heads})"
        )
