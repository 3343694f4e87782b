"""The Vision Transformer in NumPy, a patch and a token at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from helpers.oracles.loop_attention import Array, linear, self_attention


def vit(image: Array, parameters: Mapping[str, Array], *, patch: int, heads: int, eps: float) -> Array:
    """All tokens after the final norm, the class token first."""
    x = tokens(image, parameters, patch)
    depth = sum(name.endswith("norm1.weight") for name in parameters)
    for index in range(depth):
        block = {
            name.removeprefix(f"blocks.{index}."): p for name, p in parameters.items() if f"blocks.{index}." in name
        }
        attention = {name.removeprefix("attn."): p for name, p in block.items()}
        added = self_attention(norm(x, block, "norm1", eps), attention, heads)
        x = x + block.get("ls1.gamma", np.ones(1)) * added
        hidden = gelu(linear(norm(x, block, "norm2", eps), block, "mlp.fc1"))
        x = x + block.get("ls2.gamma", np.ones(1)) * linear(hidden, block, "mlp.fc2")
    return norm(x, parameters, "norm", eps)


def tokens(image: Array, parameters: Mapping[str, Array], patch: int) -> Array:
    """Class token and patches, row by row, with their positions."""
    batch, _, height, width = image.shape
    weight, bias = parameters["patch_embed.proj.weight"], parameters["patch_embed.proj.bias"]
    sequence = [np.repeat(parameters["cls_token"][:, 0], batch, axis=0)]
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            pixels = image[:, :, top : top + patch, left : left + patch]
            sequence.append(np.array([[(kernel * one).sum() for kernel in weight] for one in pixels]) + bias)
    return np.stack(sequence, 1) + parameters["pos_embed"]


def norm(x: Array, parameters: Mapping[str, Array], name: str, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(-1, keepdims=True) + eps)
    return centred / deviation * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """x Phi(x)."""
    return np.vectorize(lambda one: one * 0.5 * math.erfc(-one / math.sqrt(2)))(x)
