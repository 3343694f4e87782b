"""From transformers' conventions to the spec's. What an adapter adds is said here, so that no verdict is about it.

Core: transformers takes the level shapes as a Python list, too, and group rt_detr_v2 has level and point as one axis.

Module: their attention ends with the output projection; dropout and identity belong to the layer around it. The adapter
adds both. It also adds
- `~` to the mask where theirs is True for valid cells;
- for rt_detr_v2 and d_fine the reference *box* of each level once for each of its points: theirs broadcasts
  (B, Q, 1, 4) over the joint axis of levels and points, and takes (B, Q, L * P, 4) as well. Reference points with two
  coordinates are handed over as they are;
- for d_fine and deimv2, which have neither, value_proj, output_proj and query + query_pos. The projections are
  initialised as the spec says, so that MSDM-19 is about their offsets and attention weights alone.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_conformance.target import TargetError
from detr_conformance.targets.transformers.deformable_attention_families import Family
from detr_reference.deformable_attention.config import MSDeformAttnConfig

IM2COL_STEP = 64  # read by their CUDA kernel alone, which they use only where a model asks for it


@cache
def _source(family: Family) -> ModuleType:
    try:
        return importlib.import_module(f"transformers.models.{family.name}.modeling_{family.name}")
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {family.name}: {error}") from error


def sample(
    family: Family,
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """The family's core."""
    source, shapes = _source(family), _as_list(spatial_shapes)
    if family.group == "deformable_detr":
        return source.MultiScaleDeformableAttention()(
            value,
            spatial_shapes,
            shapes,
            level_start_index,
            sampling_locations,
            attention_weights,
            IM2COL_STEP,
        )
    if family.group == "mask2former":
        return source.multi_scale_deformable_attention(value, shapes, sampling_locations, attention_weights)
    levels, points = sampling_locations.shape[3:5]
    return source.multi_scale_deformable_attention_v2(
        value, shapes, sampling_locations.flatten(3, 4), attention_weights.flatten(3, 4), [points] * levels
    )


def _as_list(spatial_shapes: Int[Tensor, "level 2"]) -> list[tuple[int, int]]:
    return [(height, width) for height, width in spatial_shapes.tolist()]


def build(family: Family, config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """The family's module with these parameters; None means as the family's model initialises it."""
    module = Adapted(family, config)
    if state_dict is None:
        model = getattr(_source(family), f"{family.prefix}PreTrainedModel")
        module.attention.apply(model(model.config_class())._init_weights)
        return module
    module.to(next(iter(state_dict.values())))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state_dict[".".join(name.split(".")[-2:])])
    return module


def _attention(family: Family, config: MSDeformAttnConfig) -> nn.Module:
    """The family's own module, made from the family's own configuration."""
    source = _source(family)
    sizes = (config.num_heads, config.num_points)
    if family.group == "mask2former":
        kind = getattr(source, f"{family.prefix}PixelDecoderEncoderMultiscaleDeformableAttention")
        return kind(config.embed_dim, config.num_heads, config.num_levels, config.num_points)
    theirs = getattr(source, f"{family.prefix}PreTrainedModel").config_class()
    theirs.d_model = config.embed_dim
    theirs.num_feature_levels = config.num_levels
    kind = getattr(source, f"{family.prefix}MultiscaleDeformableAttention")
    if family.group == "deformable_detr":
        return kind(theirs, *sizes)
    theirs.decoder_n_levels = config.num_levels
    theirs.decoder_attention_heads, theirs.decoder_n_points = sizes
    return kind(theirs)


class Adapted(nn.Module):
    """A family's attention with the signature of the spec's module."""

    def __init__(self, family: Family, config: MSDeformAttnConfig) -> None:
        super().__init__()
        self.family = family
        self.config = config
        self.attention = _attention(family, config)
        self.accepted = frozenset(inspect.signature(self.attention.forward).parameters)
        self.lacks_projections = family.group == "d_fine"
        if self.lacks_projections:
            self.value_proj, self.output_proj = _projection(config.embed_dim), _projection(config.embed_dim)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        value: Float[Tensor, "batch cell embed"] | None = None,
        identity: Float[Tensor, "batch query embed"] | None = None,
        query_pos: Float[Tensor, "batch query embed"] | None = None,
        key_padding_mask: Bool[Tensor, "batch cell"] | None = None,
        *,
        reference_points: Float[Tensor, "batch query level coordinate"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
    ) -> Float[Tensor, "batch query embed"]:
        value = query if value is None else value
        identity = query if identity is None else identity
        if self.lacks_projections:
            value = self.value_proj(value)
            query = query if query_pos is None else query + query_pos
        mask = key_padding_mask
        if mask is not None and self.family.group != "mask2former":
            mask = ~mask
        if self.family.group in ("rt_detr_v2", "d_fine") and reference_points.shape[-1] == 4:
            reference_points = reference_points.repeat_interleave(self.config.num_points, dim=2)
        arguments = {
            "hidden_states": query,
            "attention_mask": mask,
            "encoder_hidden_states": value,
            "position_embeddings": query_pos,
            "reference_points": reference_points,
            "spatial_shapes": spatial_shapes,
            "spatial_shapes_list": _as_list(spatial_shapes),
            "level_start_index": level_start_index,
        }
        output, _ = self.attention(**{name: a for name, a in arguments.items() if name in self.accepted})
        if self.lacks_projections:
            output = self.output_proj(output)
        return identity + F.dropout(output, self.config.dropout, self.training)


def _projection(embed_dim: int) -> nn.Linear:
    linear = nn.Linear(embed_dim, embed_dim)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
