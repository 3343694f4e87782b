"""Functions of any library's arrays as functions of tensors, by the protocol that libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detr_conformance.adapters.arrays import Arrays, adapted


def from_dlpack(
    function: Callable[..., Any], vjp: Callable[..., Any] | None = None, into: Callable[[Any], Any] | None = None
) -> Callable[..., Any]:
    """`function`, which takes and returns what has `__dlpack__`, as the suite calls it: with tensors.

    Nothing is copied, on whatever device. Keyword settings pass through.

    Args:
        function: returns an array, or a tuple or dict of them, as the operation has it.
        vjp: `(grad_output, *arrays) -> gradients`: one for each array, None for an integer one. Without it the function
            is forward only: its target says `features=()`.
        into: the library's own `from_dlpack`, as `cupy.from_dlpack`; without it the arrays are tensors, of which the
            function makes its own arrays.
    """
    give: Callable[[Tensor], Any] = Tensor.detach if into is None else lambda tensor: into(tensor.detach())
    return adapted(function, vjp, Arrays(give, _tensor_of))


def _tensor_of(array: Any) -> Tensor:
    if not hasattr(array, "__dlpack__"):
        raise TypeError(f"a {type(array).__name__} was returned, which has no __dlpack__")
    found: Tensor = torch.from_dlpack(array)
    return found
