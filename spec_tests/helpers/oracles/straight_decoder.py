"""DINO's decoder for one image in NumPy, layer after layer, with nothing but numbers: no gradients, no modules.

Attention and sampling come from the loops of this folder; everything else is written out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from helpers.oracles.loop_attention import Array, attention, linear
from helpers.oracles.scalar_msda import forward as sample


class Image(NamedTuple):
    """One image of a call: everything but the parameters, without the batch axis."""

    query: Array
    memory: Array
    boxes: Array
    forbidden: Array
    padding: Array
    shapes: list[tuple[int, int]]
    ratios: Array


class Sizes(NamedTuple):
    """What the parameters do not say."""

    layers: int
    heads: int
    points: int
    scaled: bool
    eps: float


def decode(image: Image, parameters: Mapping[str, Array], sizes: Sizes) -> dict[str, Array]:
    """hidden_states, references, pred_logits and pred_boxes, without the batch axis."""
    out, fed = image.query, image.boxes
    found: dict[str, list[Array]] = {"hidden_states": [], "references": [fed], "pred_logits": [], "pred_boxes": []}
    for i in range(sizes.layers):
        own = {name.removeprefix(f"layers.{i}."): p for name, p in parameters.items() if f"layers.{i}." in name[:9]}
        head = min(i, sum(name.startswith("class_embed") for name in parameters) // 2 - 1)
        seen = fed * np.tile(image.ratios[0], 2) if sizes.scaled else fed
        pos = mlp(np.array([embedded(box, len(out[0]) // 2) for box in seen]), parameters, "ref_point_head", 2)
        out = norm(out + among_queries(out, pos, image.forbidden, own, sizes.heads), own, "norms.0")
        out = norm(out + to_memory(out + pos, fed, image, own, sizes), own, "norms.1")
        hidden = np.maximum(linear(out, own, "ffns.0.layers.0.0"), 0)
        out = norm(out + linear(hidden, own, "ffns.0.layers.1"), own, "norms.2")
        state = norm(out, parameters, "norm")
        found["hidden_states"].append(state)
        found["pred_logits"].append(linear(state, parameters, f"class_embed.{head}"))
        found["pred_boxes"].append(moved(fed, mlp(state, parameters, f"bbox_embed.{head}", 3), sizes.eps))
        fed = moved(fed, mlp(out, parameters, f"bbox_embed.{head}", 3), sizes.eps)
        found["references"].append(fed)
    return {name: np.stack(each) for name, each in found.items()}


def among_queries(out: Array, pos: Array, forbidden: Array, own: Mapping[str, Array], heads: int) -> Array:
    """Multi-head self-attention; a forbidden key is left out of the list of keys of a query."""
    weights, biases = (np.split(own[f"attentions.0.in_proj_{kind}"], 3) for kind in ("weight", "bias"))
    query, key, value = (
        x @ weight.T + bias for x, weight, bias in zip((out + pos, out + pos, out), weights, biases, strict=True)
    )
    rows = []
    for row in range(len(out)):
        allowed = ~forbidden[row]
        rows.append(attention(query[None, row : row + 1], key[None, allowed], value[None, allowed], heads)[0, 0])
    return linear(np.array(rows), own, "attentions.0.out_proj")


def to_memory(looking: Array, boxes: Array, image: Image, own: Mapping[str, Array], sizes: Sizes) -> Array:
    """Deformable attention around the boxes, in units of each padded map."""
    queries, levels = len(looking), len(image.shapes)
    value = linear(image.memory, own, "attentions.1.value_proj")
    value[image.padding] = 0
    offsets = linear(looking, own, "attentions.1.sampling_offsets")
    offsets = offsets.reshape(queries, sizes.heads, levels, sizes.points, 2)
    logits = linear(looking, own, "attentions.1.attention_weights").reshape(queries, sizes.heads, -1)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    locations = np.zeros_like(offsets)
    for index in np.ndindex(*offsets.shape[:4]):
        x, y, w, h = boxes[index[0]]
        across, down = image.ratios[index[2]]
        dx, dy = offsets[index] / sizes.points
        locations[index] = (x + dx * w / 2) * across, (y + dy * h / 2) * down
    heads = value.reshape(1, len(value), sizes.heads, -1)
    read = sample(heads, image.shapes, locations[None], weights.reshape(1, *offsets.shape[:4]))
    return linear(read[0], own, "attentions.1.output_proj")


def embedded(box: Array, waves: int) -> list[float]:
    """Sines and cosines of y, x, w, h."""
    x, y, w, h = (2 * math.pi * float(coordinate) for coordinate in box)
    return [
        (math.cos if channel % 2 else math.sin)(phase / 10000 ** (2 * (channel // 2) / waves))
        for phase in (y, x, w, h)
        for channel in range(waves)
    ]


def mlp(x: Array, parameters: Mapping[str, Array], name: str, depth: int) -> Array:
    for index in range(depth):
        x = linear(x if index == 0 else np.maximum(x, 0), parameters, f"{name}.layers.{index}")
    return x


def moved(boxes: Array, delta: Array, eps: float) -> Array:
    logit = np.log(np.maximum(boxes, eps) / np.maximum(1 - boxes, eps))
    return 1 / (1 + np.exp(-delta - logit))


def norm(x: Array, parameters: Mapping[str, Array], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred / deviation * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]
