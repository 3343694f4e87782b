"""What a family of transformers provides of deformable attention; `deformable_attention_families` has the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from detr_conformance.targets.transformers.deformable_attention_families import BOXES_ONLY, FAMILIES, Family

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor, nn

    from detr_reference.deformable_attention.config import MSDeformAttnConfig


def provides(name: str) -> dict[str, Callable[..., Any]]:
    """The operations of a family, for `Target.provides`."""
    family = FAMILIES[name]
    return {"ms_deform_attn": _core(family), "ms_deform_attn_module": _factory(family)}


def variants(name: str) -> dict[str, str]:
    """The variants that belong to them, for `Target.variants`."""
    boxes = {"reference_points": "boxes"} if FAMILIES[name].group in BOXES_ONLY else {}
    return {"coordinates": "half"} | boxes


def _core(family: Family) -> Callable[..., Tensor]:
    def ms_deform_attn(
        value: Float[Tensor, "batch cell head channel"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
        sampling_locations: Float[Tensor, "batch query head level point 2"],
        attention_weights: Float[Tensor, "batch query head level point"],
    ) -> Float[Tensor, "batch query head*channel"]:
        from detr_conformance.targets.transformers.deformable_attention_adapters import sample

        return sample(family, value, spatial_shapes, level_start_index, sampling_locations, attention_weights)

    return ms_deform_attn


def _factory(family: Family) -> Callable[..., nn.Module]:
    def ms_deform_attn_module(config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.deformable_attention_adapters import build

        return build(family, config, state_dict)

    return ms_deform_attn_module
