"""The sampling function of a model's deformable attention: a user's own, or the one that suits the device."""

from __future__ import annotations

import inspect
from typing import cast

import torch

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import DeformableCore
from detr_reference.training.learning.user_function import function_named

ARGUMENTS = tuple(inspect.signature(ms_deform_attn).parameters)


def sampling_function(name: str) -> DeformableCore:
    """The function `package.module:function` or `path/to/file.py:function`, which is called as `ms_deform_attn` is.

    Whether it computes the same is a question for `detr-spec check`.

    Raises:
        ValueError: it cannot be found or imported, or does not take five tensors by position.
    """
    function = function_named(name)
    try:
        signature = inspect.signature(function)
    except ValueError:  # a compiled function need not have one
        return cast(DeformableCore, function)
    try:
        signature.bind(*ARGUMENTS)
    except TypeError as error:
        raise ValueError(f"{name} must take ({', '.join(ARGUMENTS)}), but takes {signature}: {error}") from error
    return cast(DeformableCore, function)


def default_sampling_function(device: torch.device | str) -> DeformableCore:
    """The CPU kernel on a CPU, the reference's function elsewhere. They differ by rounding."""
    if torch.device(device).type == "cpu":
        from detr_reference.kernels.cpu import ms_deform_attn as cpu_kernel

        return cpu_kernel
    return ms_deform_attn
