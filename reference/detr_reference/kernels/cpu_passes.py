"""Forward and backward pass of the CPU kernel, part by part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_reference.deformable_attention.core import compute_dtype
from detr_reference.kernels.cpu_corners import corner_shares, look, sample_gradients
from detr_reference.kernels.cpu_layout import Layout, layout_of
from detr_reference.kernels.cpu_products import bag_sums, entry_products, row_sums

SAMPLES = 1 << 16  # that are looked at together: what is computed of them stays in the caches


class Saved(NamedTuple):
    """What the backward pass needs to know of a part: its cells with zeros around each map, and its matrix."""

    table: Float[Tensor, "row channel"]
    entries: Int[Tensor, "image query head 4 sample"]
    shares: Float[Tensor, "image query head 4 sample"]
    fractions: Float[Tensor, "image query head 2 sample"]


def sample_all(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    locations: Float[Tensor, "batch query head level point 2"],
    weights: Float[Tensor, "batch query head level point"],
    saved: list[Saved] | None = None,
) -> Float[Tensor, "batch query head*channel"]:
    """The output; what the backward pass needs is appended to `saved`, if that is given."""
    dtype = compute_dtype(value, locations, weights)
    if not _all_finite(weights):
        weights = weights.masked_fill(_out_of_range(spatial_shapes, locations, dtype), 0)
    batch, queries, heads, _, _ = weights.shape
    output = value.new_empty(batch, queries, heads * value.shape[-1])
    by_head = output.view(batch, queries, heads, -1)
    for part, layout in _parts(spatial_shapes, weights, dtype):
        own = weights[part].to(dtype).flatten(3)
        table = bag_sums(value[part].to(dtype).flatten(0, 2), layout.filled, layout.starts)
        kept = _room(own, layout) if saved is not None else ()
        where = locations[part].flatten(3, 4)
        for w, xy, out, *room in _pieces(own, where, by_head[part], *kept):
            entries, shares, fractions = room or _room(w, layout)
            look(xy, layout, entries, fractions)
            corner_shares(w, fractions, shares)
            out.copy_(bag_sums(table, entries.flatten(), _bags(layout, w), shares.flatten()).view(out.shape))
        if saved is not None:
            saved.append(Saved(table, *kept))
    return output


def gradients_of(
    grad_output: Float[Tensor, "batch query width"],
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    locations: Float[Tensor, "batch query head level point 2"],
    weights: Float[Tensor, "batch query head level point"],
    saved: Sequence[Saved],
    asked: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of value, locations and weights, where they are asked for."""
    dtype = compute_dtype(value, locations, weights)
    heads, channels = value.shape[2:]
    upstream = grad_output.unflatten(-1, (heads, channels))
    of_value = value.new_empty(value.shape)
    of_locations = locations.new_empty(locations.shape, dtype=dtype)
    of_weights = weights.new_empty(weights.shape, dtype=dtype)
    for (part, layout), (table, entries, shares, fractions) in zip(
        _parts(spatial_shapes, weights, dtype), saved, strict=True
    ):
        own = weights[part].to(dtype).flatten(3)
        grad = upstream[part].to(dtype).contiguous()
        if asked[0]:
            of_table = row_sums(grad.flatten(0, 2), entries.flatten(), layout.bags, shares.flatten(), layout.rows)
            target = of_value[part]
            target.copy_(of_table.index_select(0, layout.places).view(target.shape))
        if asked[1] or asked[2]:
            targets = of_weights[part].flatten(3), of_locations[part].flatten(3, 4)
            for w, e, f, g, *of in _pieces(own, entries, fractions, grad, *targets):
                products = entry_products(g.flatten(0, 2), table, e.flatten(), _bags(layout, w))
                sample_gradients(products.view(e.shape), w, f, layout, *of)
    if not (_all_finite(weights) and _all_finite(grad_output)):
        outside = _out_of_range(spatial_shapes, locations, dtype)
        of_locations.masked_fill_(outside.unsqueeze(-1), 0)
        of_weights.masked_fill_(outside, 0)
    return (
        of_value if asked[0] else None,
        of_locations.to(locations.dtype) if asked[1] else None,
        of_weights.to(weights.dtype) if asked[2] else None,
    )


def _parts(
    spatial_shapes: Tensor, weights: Float[Tensor, "batch query head level point"], dtype: torch.dtype
) -> Iterator[tuple[EllipsisType | tuple[slice, slice, slice], Layout]]:
    """Indices of images, queries and heads, and the layout of the table that these share.

    It is everything if the call is small, and otherwise some images, or some heads of an image, with about SAMPLES
    samples, but all the queries of a head at least.
    """
    shapes = tuple(map(tuple, spatial_shapes.tolist()))
    batch, queries, heads, levels, points = weights.shape
    fit = max(1, SAMPLES // (queries * levels * points))
    images_step, heads_step = min(max(1, fit // heads), batch), min(fit, heads)
    if images_step == batch and heads_step == heads:
        yield ..., layout_of(shapes, batch, queries, heads, points, dtype)
        return
    for image in range(0, batch, images_step):
        for head in range(0, heads, heads_step):
            part = slice(image, image + images_step), slice(None), slice(head, head + heads_step)
            images, some = min(images_step, batch - image), min(heads_step, heads - head)
            yield part, layout_of(shapes, images, queries, some, points, dtype)


def _pieces(weights: Float[Tensor, "image query head sample"], *others: Tensor) -> Iterator[Sequence[Tensor]]:
    """Those of one image and head, cut along the queries into pieces of about SAMPLES samples."""
    images, _, heads, samples = weights.shape
    if images * heads > 1 or weights.numel() <= SAMPLES:
        yield weights, *others
        return
    step = max(1, SAMPLES // samples)
    yield from zip(*(tensor.split(step, dim=1) for tensor in (weights, *others)), strict=True)


def _room(weights: Float[Tensor, "image query head sample"], layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """For entries, shares and fractions."""
    *bag, samples = weights.shape
    entries = layout.corners.new_empty(*bag, 4, samples)
    return entries, weights.new_empty(*bag, 4, samples), weights.new_empty(*bag, 2, samples)


def _bags(layout: Layout, weights: Float[Tensor, "image query head sample"]) -> Int[Tensor, " bound"]:
    return layout.bags[: weights.shape[:3].numel() + 1]


def _all_finite(tensor: Tensor) -> bool:
    """False also if the sum overflows, which does no harm."""
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return math.isfinite(tensor.sum(dtype=wide).item())


def _out_of_range(
    spatial_shapes: Int[Tensor, "level 2"],
    locations: Float[Tensor, "batch query head level point 2"],
    dtype: torch.dtype,
) -> Bool[Tensor, "batch query head level point"]:
    """What must be left out by hand: NaN and infinity times the zeros around a map are not zero."""
    sizes = spatial_shapes.flip(-1).to(dtype)[:, None]
    pixels = locations.to(dtype) * sizes - 0.5
    return ~((pixels > -1) & (pixels < sizes)).all(-1)
