"""The reference as a target: it must pass its own suite, or one of the two is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detr_conformance.target import DTYPES, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from detr_reference.deformable_attention_module import MSDeformAttnConfig, MultiScaleDeformableAttention


def ms_deform_attn(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """`detr_reference.deformable_attention.ms_deform_attn`, imported when it is called."""
    from detr_reference.deformable_attention import ms_deform_attn

    return ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)


def ms_deform_attn_module(
    config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None
) -> MultiScaleDeformableAttention:
    """`detr_reference.deformable_attention_module.build`, imported when it is called."""
    from detr_reference.deformable_attention_module import build

    return build(config, state_dict)


target = Target(
    name="reference",
    provides={"ms_deform_attn": ms_deform_attn, "ms_deform_attn_module": ms_deform_attn_module},
    devices=("cpu", "cuda"),
    dtypes=DTYPES,
    features=("backward", "deterministic", "compile", "autocast", "export"),
)
