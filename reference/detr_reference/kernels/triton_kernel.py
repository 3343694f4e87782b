"""Multi-scale deformable attention as fused Triton kernels behind torch custom operators.

    from detr_reference.kernels.triton_kernel import ms_deform_attn

It has the signature and the meaning of `detr_reference.ms_deform_attn`, on NVIDIA GPUs. No
intermediate is written: beside the output and the gradients themselves it needs memory only for copies of arguments
that are not contiguous, for a gradient of value in float32 where value is in half precision, and for deterministic
algorithms (see `triton_gather`).

Under torch.compile the operators are opaque and break no graph. Under autocast they keep the dtypes of their arguments:
locations stay in float32, and the output has the dtype of value. There is no second derivative.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.deformable_attention.core import check_arguments
from detr_reference.kernels.triton_operator import operator
from detr_reference.kernels.triton_sampling import INTERPRETED


def ms_deform_attn(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """out[b, q, m] = sum over l, p of attention_weights[b, q, m, l, p] * bilinear(value_l[b, m], location)

    See `detr_reference.ms_deform_attn`. The gradient of value is summed by atomic additions, whose order differs from
    run to run, unless torch.use_deterministic_algorithms(True) holds when backward runs.

    The contents of spatial_shapes and level_start_index are read for the check, which waits for the GPU; but not inside
    torch.compile, nor while a CUDA graph is captured. A level that does not lie within the cells then reads as empty.

    Raises:
        ValueError: shapes disagree, as in the reference; or the arguments do not lie on one GPU.
        TypeError: a dtype is not floating point (value, locations, weights) or not integer (the rest).
    """
    return _call(value, spatial_shapes, level_start_index, sampling_locations, attention_weights, False)


def ms_deform_attn_deterministic(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """`ms_deform_attn` with the gradient of value summed in a fixed order, whatever torch is set to."""
    return _call(value, spatial_shapes, level_start_index, sampling_locations, attention_weights, True)


def _call(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    deterministic: bool,
) -> Tensor:
    arguments = (value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    if torch.compiler.is_compiling() or not (value.is_cuda and torch.cuda.is_current_stream_capturing()):
        check_arguments(*arguments)
    if any(tensor.device != value.device for tensor in arguments) or not (value.is_cuda or INTERPRETED):
        raise ValueError(
            "the Triton kernel takes tensors on one GPU (on the CPU with TRITON_INTERPRET=1 in the environment), got "
            + ", ".join(str(tensor.device) for tensor in arguments)
        )
    return operator(*arguments, deterministic)
