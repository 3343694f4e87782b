"""Feed-forward network and MLP one number at a time, with the activations of Python's math module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Matrix = Sequence[Sequence[float]]


def relu(x: float) -> float:
    return x if x > 0 else 0.0


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def network(
    token: Sequence[float], weights: Sequence[Matrix], biases: Sequence[Sequence[float]], act: Callable[[float], float]
) -> list[float]:
    """act between the linear layers, none after the last."""
    seen = list(token)
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        seen = [sum(w * x for w, x in zip(row, seen, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        if number < len(weights) - 1:
            seen = [act(x) for x in seen]
    return seen
