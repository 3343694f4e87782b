"""Deformable attention by grid_sample with one mistake each: other code than that of the mutants, the same mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.target import Target

Core = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def sampled(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    *,
    padding: str = "zeros",
    align: bool = False,
    mode: str = "bilinear",
) -> Tensor:
    """Right, with the defaults."""
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    total = value.new_zeros(batch, heads, channels, queries)
    for level, (height, width) in enumerate(shapes.tolist()):
        start = int(starts[level])
        cells = value[:, start : start + height * width].permute(0, 2, 3, 1).reshape(-1, channels, height, width)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).reshape(-1, queries, points, 2) - 1
        found = F.grid_sample(cells, grid, mode=mode, padding_mode=padding, align_corners=align)
        share = weights[:, :, :, level].permute(0, 2, 1, 3)[:, :, None]
        total = total + (found.view(batch, heads, channels, queries, points) * share).sum(-1)
    return total.permute(0, 3, 1, 2).reshape(batch, queries, heads * channels)


def channels_first(v: Tensor, s: Tensor, t: Tensor, loc: Tensor, w: Tensor) -> Tensor:
    return sampled(v, s, t, loc, w).unflatten(-1, v.shape[2:]).transpose(-1, -2).flatten(-2)


def without_half(v: Tensor, s: Tensor, t: Tensor, loc: Tensor, w: Tensor) -> Tensor:
    return sampled(v, s, t, loc + 0.5 / s.flip(-1)[:, None].to(loc), w)


def softmaxed(v: Tensor, s: Tensor, t: Tensor, loc: Tensor, w: Tensor) -> Tensor:
    return sampled(v, s, t, loc, w.flatten(-2).softmax(-1).view_as(w))


def doubled_slope(v: Tensor, s: Tensor, t: Tensor, loc: Tensor, w: Tensor) -> Tensor:
    """Its output is right: only the gradient of the locations is not."""
    return sampled(v, s, t, 2 * loc - loc.detach(), w)


# The mutant that makes the same mistake, and the kernel.
WRONG: dict[str, Core] = {
    "border-everywhere": lambda v, s, t, loc, w: sampled(v, s, t, loc, w, padding="border"),
    "align-corners": lambda v, s, t, loc, w: sampled(v, s, t, loc, w, align=True),
    "y-first-locations": lambda v, s, t, loc, w: sampled(v, s, t, loc.flip(-1), w),
    "width-first-shapes": lambda v, s, t, loc, w: sampled(v, s.flip(-1), t, loc, w),
    "clipped-locations": lambda v, s, t, loc, w: sampled(v, s, t, loc.clamp(0, 1), w),
    "divided-by-sum": lambda v, s, t, loc, w: sampled(v, s, t, loc, w / w.sum((-1, -2), keepdim=True)),
    "first-image-looks": lambda v, s, t, loc, w: sampled(v, s, t, loc[:1].expand_as(loc), w),
    "negative-weights-dropped": lambda v, s, t, loc, w: sampled(v, s, t, loc, w.relu()),
    "channel-major-output": channels_first,
    "no-half-cell": without_half,
    "softmax-inside": softmaxed,
    "location-gradient-doubled": doubled_slope,
}
LIKE_NONE: dict[str, Core] = {
    "right": sampled,
    "scaled": lambda *call: 1.37 * sampled(*call),
    "nearest": lambda *call: sampled(*call, mode="nearest"),
    "shifted": lambda v, s, t, loc, w: sampled(v, s, t, loc + 0.01, w),
    "two mistakes": lambda v, s, t, loc, w: sampled(v, s, t, loc.flip(-1), w, align=True),
}


def target_of(kernel: Core) -> Target:
    return Target("of-somebody", {"ms_deform_attn": kernel})


def _dies(*call: Tensor) -> Tensor:
    if call[4].numel() > 1:
        os._exit(3)
    return torch.zeros(())


dying = target_of(_dies)
border = target_of(WRONG["border-everywhere"])
