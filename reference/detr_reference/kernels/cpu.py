"""Multi-scale deformable attention for the CPU: products of a sparse matrix, with the backward pass written out.

Every image, query and head is a row of a sparse matrix A, every cell a column, and the four corners of each sample are
entries of its row:

    output = A table          d table = Aᵀ d output          d A = d output tableᵀ, at the entries of A

The table holds the cells with zeros around each map, so that a corner outside a map is an entry like any other. Needed
are torch and scipy alone. `detr-spec bench` compares the speed, `detr-spec check` the results.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.deformable_attention import core as reference
from detr_reference.kernels import cpu_operator
from detr_reference.kernels.cpu_passes import Saved, gradients_of, sample_all


def ms_deform_attn(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """out[b, q, m] = sum over l, p of attention_weights[b, q, m, l, p] * bilinear(value_l[b, m], location)

    Arguments, result and errors are those of `detr_reference.ms_deform_attn`. Gradients of gradients are not supported
    there either.

    Raises:
        ValueError: also if a tensor is not on the CPU.
    """
    reference.check_arguments(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    floating = value, sampling_locations, attention_weights
    for tensor in (*floating, spatial_shapes):
        if tensor.device.type != "cpu":
            raise ValueError(f"this kernel takes tensors on the CPU, got one on {tensor.device}")
    if any(tensor.numel() == 0 for tensor in floating):
        return reference.ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    arguments = value, spatial_shapes, sampling_locations, attention_weights
    if torch.compiler.is_compiling():
        output: Tensor = cpu_operator.forward(*arguments)
        return output
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in floating):
        return _Sampling.apply(*arguments)
    return sample_all(*arguments)


class _Sampling(torch.autograd.Function):
    """What `cpu_operator` does, without its cost for each call, and without looking twice."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        parts: list[Saved] = []
        output = sample_all(value, spatial_shapes, locations, weights, parts)
        ctx.save_for_backward(value, spatial_shapes, locations, weights, *(tensor for part in parts for tensor in part))
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        value, spatial_shapes, locations, weights, *rest = ctx.saved_tensors
        count = len(Saved._fields)
        parts = [Saved(*rest[first : first + count]) for first in range(0, len(rest), count)]
        of_value, _, of_locations, of_weights = ctx.needs_input_grad
        asked = of_value, of_locations, of_weights
        with torch.no_grad():
            found = gradients_of(grad_output, value, spatial_shapes, locations, weights, parts, asked)
        if torch.is_grad_enabled():
            found = tuple(_Once.apply(each, grad_output, value, locations, weights) for each in found)
        return found[0], None, *found[1:]


class _Once(torch.autograd.Function):
    """A gradient that depends on these tensors, as the graph shall know, but cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor | None, *of: Tensor) -> Tensor | None:
        return gradient

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> NoReturn:
        raise NotImplementedError("the CPU kernel of ms_deform_attn has no gradients of its gradients")
