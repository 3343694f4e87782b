"""The Triton kernels as torch custom operators: any strides and sizes, fake tensors, autograd.

They trust the arguments' shapes; `triton_kernel` checks them. No annotation here is a string, because torch reads them.
"""

from typing import Any

import torch
from torch import Tensor

from detr_reference.kernels.triton_backward import Wanted, backward
from detr_reference.kernels.triton_forward import forward
from detr_reference.kernels.triton_gather import gather_value_gradient
from detr_reference.kernels.triton_sampling import INTERPRETED


@torch.library.custom_op("detr_spec::triton_ms_deform_attn", mutates_args=())
def operator(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    deterministic: bool,
) -> Tensor:
    """The output; `deterministic` is remembered for backward."""
    tensors = (value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    if value.numel() == 0 or attention_weights.numel() == 0:
        return _output_like(*tensors).zero_()
    return forward(*map(_prepared, tensors)).to(value.dtype)


@operator.register_fake
def _output_like(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    deterministic: bool = False,
) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, sampling_locations.shape[1], heads * channels)


@torch.library.custom_op("detr_spec::triton_ms_deform_attn_backward", mutates_args=())
def backward_operator(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    wanted: list[bool],
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights; those not wanted without elements."""
    given = (value, spatial_shapes, level_start_index, sampling_locations, attention_weights, grad_output)
    if value.numel() == 0 or attention_weights.numel() == 0:
        first, second, third = (gradient.zero_() for gradient in _gradients_like(*given, wanted, deterministic))
        return first, second, third
    tensors = [*map(_prepared, given)]
    want = Wanted(*wanted)
    gathered = want.value and (deterministic or torch.are_deterministic_algorithms_enabled())
    scattered = want._replace(value=want.value and not gathered)
    grad_value, grad_locations, grad_weights = backward(*tensors, wanted=scattered)
    if gathered:
        grad_value = gather_value_gradient(*tensors)
    return (
        grad_value.to(value.dtype),
        grad_locations.to(sampling_locations.dtype),
        grad_weights.to(attention_weights.dtype),
    )


@backward_operator.register_fake
def _gradients_like(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    wanted: list[bool],
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (
        argument.new_empty(argument.shape if want else 0)
        for argument, want in zip((value, sampling_locations, attention_weights), wanted, strict=True)
    )
    return first, second, third


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.deterministic = inputs
    ctx.save_for_backward(*tensors)


def _pull_back(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    to_value, _, _, to_locations, to_weights, _ = ctx.needs_input_grad
    wanted = [to_value, to_locations, to_weights]
    gradients = backward_operator(*ctx.saved_tensors, grad_output, wanted, ctx.deterministic)
    of_value, of_locations, of_weights = (
        gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)
    )
    return of_value, None, None, of_locations, of_weights, None


operator.register_autograd(_pull_back, setup_context=_remember)


def _prepared(tensor: Tensor) -> Tensor:
    """As the kernels take it. The interpreter rounds to bfloat16 by cutting off, so that there torch has to round."""
    if INTERPRETED and tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.contiguous()
