"""Attention in NumPy, a query, a head and a key at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def linear(x: Array, parameters: Mapping[str, Array], name: str) -> Array:
    """x W^T + b; b where there is one."""
    bias = parameters.get(f"{name}.bias", np.zeros(1))
    return x @ parameters[f"{name}.weight"].T + bias


def attention(query: Array, key: Array, value: Array, heads: int) -> Array:
    """(B, Q, C) from projected query, key and value; head h owns the channels h * D to (h + 1) * D."""
    batch, queries, embed = query.shape
    channels = embed // heads
    output = np.zeros((batch, queries, embed))
    for b, q, h in np.ndindex(batch, queries, heads):
        own = slice(h * channels, (h + 1) * channels)
        logits = [float(query[b, q, own] @ key[b, k, own]) / math.sqrt(channels) for k in range(key.shape[1])]
        powers = [math.exp(logit - max(logits)) for logit in logits]
        for k, power in enumerate(powers):
            output[b, q, own] += power / sum(powers) * value[b, k, own]
    return output


def self_attention(x: Array, parameters: Mapping[str, Array], heads: int) -> Array:
    projected = linear(x, parameters, "qkv")
    embed = x.shape[-1]
    parts = [projected[..., i * embed : (i + 1) * embed] for i in range(3)]
    return linear(attention(parts[0], parts[1], parts[2], heads), parameters, "proj")


def cross_attention(query: Array, key: Array, value: Array, parameters: Mapping[str, Array], heads: int) -> Array:
    parts = [linear(x, parameters, name) for x, name in ((query, "q"), (key, "k"), (value, "v"))]
    return linear(attention(parts[0], parts[1], parts[2], heads), parameters, "proj")
