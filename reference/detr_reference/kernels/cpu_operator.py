"""The CPU kernel as operators of torch, which torch.compile and torch.export take whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detr_reference.kernels.cpu_passes import Saved, gradients_of, sample_all

_ARGUMENTS = "Tensor value, Tensor spatial_shapes, Tensor locations, Tensor weights"


def _forward(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return sample_all(value, spatial_shapes, locations, weights)


def _backward(
    grad_output: Tensor, value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, ...]:
    """Looks again: an operator returns its output alone."""
    saved: list[Saved] = []
    sample_all(value, spatial_shapes, locations, weights, saved)
    gradients = gradients_of(grad_output, value, spatial_shapes, locations, weights, saved)
    return tuple(gradient for gradient in gradients if gradient is not None)


forward = torch.library.custom_op(
    "detr_spec::cpu_ms_deform_attn", _forward, mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor"
)
backward = torch.library.custom_op(
    "detr_spec::cpu_ms_deform_attn_backward",
    _backward,
    mutates_args=(),
    schema=f"(Tensor grad_output, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
)


@forward.register_fake
def _(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, queries, heads = weights.shape[:3]
    return value.new_empty(batch, queries, heads * value.shape[-1])


@backward.register_fake
def _(grad_output: Tensor, value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Any:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (value, locations, weights))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    of_value, of_locations, of_weights = backward(grad_output, *ctx.saved_tensors)
    return of_value, None, of_locations, of_weights


forward.register_autograd(_differentiate, setup_context=_keep)
