"""Multi-scale deformable attention in JAX by gathering, eager and compiled; its gradients are those of `jax.vjp`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from detr_conformance.adapters.jax_arrays import from_jax
from detr_conformance.target import DTYPES, Target


def ms_deform_attn(
    value: Array, spatial_shapes: Array, level_start_index: Array, sampling_locations: Array, attention_weights: Array
) -> Array:
    """out[b, q, m] = sum over l, p of attention_weights[b, q, m, l, p] * bilinear(value_l[b, m], location)

    Raises:
        ValueError: shapes disagree.
    """
    batch, cells, heads, channels = value.shape
    shape = attention_weights.shape
    if sampling_locations.shape != (*shape, 2) or (shape[0], *shape[2:4]) != (batch, heads, len(spatial_shapes)):
        raise ValueError(f"locations {sampling_locations.shape}, weights {shape} and value {value.shape} disagree")
    dtype = jnp.promote_types(jnp.result_type(value, sampling_locations, attention_weights), jnp.float32)
    maps = jnp.pad(value.astype(dtype), ((0, 0), (0, 1), (0, 0), (0, 0)))  # a cell of zeros behind the last
    weights = attention_weights.astype(dtype)  # once: the gradient of each conversion is rounded

    size = spatial_shapes[:, None, ::-1]  # (level, 1, (W, H))
    pixels = sampling_locations.astype(dtype) * size.astype(dtype) - 0.5
    near = ((pixels > -1) & (pixels < size)).all(-1)  # a location that is not finite is near nothing
    pixels = jnp.where(near[..., None], pixels, 0)
    lower = jnp.floor(pixels)
    part = pixels - lower

    width, start = size[..., 0], level_start_index[:, None]
    image, head = jnp.arange(batch)[:, None, None, None, None], jnp.arange(heads)[:, None, None]
    output: Any = 0
    for offset in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corner = lower.astype(jnp.int32) + jnp.array(offset)
        inside = near & ((corner >= 0) & (corner < size)).all(-1)
        cell = jnp.where(inside, start + corner[..., 1] * width + corner[..., 0], cells)
        share = jnp.where(jnp.array(offset) == 1, part, 1 - part).prod(-1)
        weight = jnp.where(inside, share, 0) * weights
        output += (weight[..., None] * maps[image, cell, head]).sum((3, 4))
    return output.reshape(*shape[:2], heads * channels).astype(value.dtype)


def _target(name: str, jit: bool) -> Target:
    return Target(
        name=name,
        provides={"ms_deform_attn": from_jax(ms_deform_attn, jit=jit)},
        dtypes=DTYPES,
        features=("backward", "deterministic"),
    )


eager = _target("jax-core", jit=False)
jitted = _target("jax-core-jitted", jit=True)
