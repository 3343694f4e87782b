"""Several outputs as one: the floating tensors of a dict, flattened and joined in the reference's order.

What is judged element by element, and differentiated, is this one tensor; its parts keep their names and shapes for
messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.mismatch import Mismatch, check_form

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(output: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the floating outputs."""
    return {name: tuple(tensor.shape) for name, tensor in output.items() if tensor.is_floating_point()}


def packed(output: Any, shapes: Shapes | None) -> Any:
    """One tensor of all floating outputs; the output as it is where the operation returns a single one.

    Raises:
        Mismatch: it is no dict, an output is missing, or has another shape.
    """
    if shapes is None:
        return output
    if not isinstance(output, Mapping):
        raise Mismatch(
            f"the output is a {type(output).__name__}, not a dict with the keys {', '.join(shapes)}", kind="form"
        )
    parts: list[Tensor] = []
    for name, shape in shapes.items():
        if name not in output:
            given = ", ".join(map(str, output)) or "none"
            raise Mismatch(f"the output has no {name}", where=name, expected=", ".join(shapes), got=given, kind="form")
        check_form(name, output[name], torch.empty(shape, device="meta"))
        parts.append(output[name])
    return torch.cat([part.flatten() for part in parts]) if parts else torch.empty(0)


def unpacked(joined: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """The parts again, as views."""
    pieces = joined.split([prod(shape) for shape in shapes.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def of_image(joined: Tensor, shapes: Shapes, image: int, axis: int) -> Tensor:
    """What the outputs say of one image of the batch, packed again."""
    parts = unpacked(joined, shapes).items()
    return torch.cat([part.narrow(_axis(name, axis), image, 1).flatten() for name, part in parts])


def shapes_of_image(shapes: Shapes, axis: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a batch of one."""
    axes = {name: _axis(name, axis) for name in shapes}
    return {name: (*shape[: axes[name]], 1, *shape[axes[name] + 1 :]) for name, shape in shapes.items()}


def _axis(name: str, axis: int) -> int:
    """The first stage predicts once, so that its outputs have no axis of layers before that of the images."""
    return 0 if name.startswith("enc_") else axis
