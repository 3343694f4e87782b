"""Functions of NumPy arrays as functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr_conformance.adapters.arrays import Arrays, adapted
from detr_conformance.target import TargetError


def from_numpy(function: Callable[..., Any], vjp: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """`function`, which takes and returns NumPy arrays, as the suite calls it: with tensors.

    Arrays share the memory of the tensors, whatever their strides. bfloat16 has the dtype of that name of the package
    `ml_dtypes`. Keyword settings pass through.

    Args:
        function: returns an array, or a tuple or dict of them, as the operation has it.
        vjp: `(grad_output, *arrays) -> gradients`: one for each array, None for an integer one. `grad_output` has the
            form of the output. Without it the function is forward only: its target says `features=()`.
    """
    return adapted(function, vjp, NUMPY)


def array_of(tensor: Tensor) -> Any:
    """The numbers of a tensor where they lie; of one on another device a copy.

    Raises:
        TargetError: it is bfloat16, and ml_dtypes is not installed.
    """
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_bfloat16())
    return tensor.numpy()


def tensor_of(array: Any) -> Tensor:
    """The numbers of an array where they lie; a copy of what cannot be written to or runs backwards.

    Raises:
        TypeError: it is no array of numbers.
    """
    if isinstance(array, Tensor):
        raise TypeError("a tensor was returned where an array is expected; provide a function of tensors as it is")
    array = np.asarray(array)
    if array.dtype.name == "bfloat16":
        return tensor_of(array.view(np.int16)).view(torch.bfloat16)
    if array.dtype == object:
        raise TypeError("what was returned is no array of numbers")
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def dtype_of(setting: Any) -> Any:
    """A dtype of torch as NumPy's of the same name, anything else as it is."""
    return array_of(torch.empty(0, dtype=setting)).dtype if isinstance(setting, torch.dtype) else setting


def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise TargetError(
            "bfloat16 in NumPy takes the package ml_dtypes: pip install ml_dtypes, or leave bfloat16 out of dtypes"
        ) from None
    return ml_dtypes.bfloat16


NUMPY = Arrays(array_of, tensor_of, dtype_of)
