"""Multi-scale deformable attention in the two forms that models are exported to ONNX in.

By `grid_sample`, a map a level, with the sizes of the maps in the graph; and by gathering rows of a table, with every
size an input. The reference's own form, `embedding_bag`, is exported to a graph that no runtime loads: its parts have
integers of two widths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Sizes = tuple[tuple[int, int], ...]


def by_grid_sample(
    value: Tensor,
    spatial_shapes: Sizes,
    level_start_index: tuple[int, ...],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """One grid_sample a level; sizes and starts are numbers."""
    import torch
    import torch.nn.functional as F

    batch, _, heads, channels = value.shape
    queries, _, levels, points = attention_weights.shape[1:]
    samples = []
    for level, ((height, width), start) in enumerate(zip(spatial_shapes, level_start_index, strict=True)):
        maps = value[:, start : start + height * width].permute(0, 2, 3, 1)
        maps = maps.reshape(batch * heads, channels, height, width)
        grid = 2 * sampling_locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples.append(F.grid_sample(maps, grid, align_corners=False))
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    output = (torch.cat(samples, -1) * weights).sum(-1)
    return output.reshape(batch, heads * channels, queries).transpose(1, 2)


def by_gathering(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Four rows of a table for each sample; its last row is zero, for corners outside a map."""
    import torch
    import torch.nn.functional as F

    batch, cells, heads, _ = value.shape
    table = F.pad(value, (0, 0, 0, 0, 0, 1)).transpose(1, 2).flatten(0, 2)
    image, head = torch.arange(batch)[:, None, None, None, None], torch.arange(heads)[:, None, None]
    first = (image * heads + head) * (cells + 1)

    size = spatial_shapes.flip(-1)[:, None]  # (level, 1, (W, H))
    pixels = sampling_locations * size - 0.5
    near = ((pixels > -1) & (pixels < size)).all(-1)  # a location that is not finite is near nothing
    pixels = torch.where(near[..., None], pixels, 0)
    lower = pixels.floor()
    part = pixels - lower

    output: Any = 0
    for across, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = lower[..., 0].long() + across, lower[..., 1].long() + down
        inside = near & (column >= 0) & (column < size[..., 0]) & (row >= 0) & (row < size[..., 1])
        cell = torch.where(inside, level_start_index[:, None] + row * size[..., 0] + column, cells)
        share = (part[..., 0] if across else 1 - part[..., 0]) * (part[..., 1] if down else 1 - part[..., 1])
        weight = torch.where(inside, share * attention_weights, 0)
        output = output + (weight[..., None] * table[first + cell]).sum((3, 4))
    return output.flatten(2)
