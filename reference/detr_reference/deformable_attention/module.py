"""Multi-scale deformable attention: the module around the sampling core.

Source: Deformable DETR, arXiv:2010.04159, section 4.1 and appendix A.3; read with
fundamentalvision/Deformable-DETR, models/ops/modules/ms_deform_attn.py, and detrex,
layers/multi_scale_deform_attn.py. Clauses: spec chapter 02.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import check_levels, ms_deform_attn
from detr_reference.every_block.parameters import with_parameters

# (value, spatial_shapes, level_start_index, sampling_locations, attention_weights) -> (batch, query, embed)
DeformableCore = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class MultiScaleDeformableAttention(nn.Module):
    """out = identity + dropout(output_proj(core(value_proj(value), locations, weights)))

    The query alone decides where each head looks and how much each sample counts; it is never compared with
    the value, so the output is affine in value.

    Parameters, each an nn.Linear with bias (C = embed_dim, M heads, L levels, P points):
        sampling_offsets: C -> M*L*P*2, read as (head, level, point, (x, y)).
        attention_weights: C -> M*L*P, read as (head, level, point).
        value_proj, output_proj: C -> C.

    Args:
        config: the sizes.
        core: the sampling function, with the signature of `ms_deform_attn`. It is given value and weights in
            one dtype and the locations in float32 or wider, because the nearest half-precision location can
            lie a whole cell away; a core that wants a single dtype has to round them itself.
    """

    def __init__(self, config: MSDeformAttnConfig, core: DeformableCore = ms_deform_attn) -> None:
        super().__init__()
        samples = config.num_heads * config.num_levels * config.num_points
        self.config = config
        self.core = core
        self.sampling_offsets = nn.Linear(config.embed_dim, samples * 2)
        self.attention_weights = nn.Linear(config.embed_dim, samples)
        self.value_proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.output_proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """offset of head h, level l, point i = (i + 1) * d_h / max|d_h|, d_h = (cos, sin)(2 pi h / M)

        The unit is one cell (references with 2 coordinates) or 1/(2P) of the box (with 4). Heads look in
        different directions, points at growing distances; all weights of a head are equal; nothing depends
        on the query yet. Value and output projections are Xavier-uniform, their biases zero.

        A model that initialises all its parameters in one loop has to call this *after* that loop, which
        would otherwise replace the zero weights.
        """
        heads, levels, points = self.config.num_heads, self.config.num_levels, self.config.num_points
        theta = torch.arange(heads, dtype=torch.float64) * (2 * math.pi / heads)
        direction = torch.stack((theta.cos(), theta.sin()), dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, points + 1, dtype=torch.float64)
        offsets = (direction[:, None, None] * distance[:, None]).expand(heads, levels, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

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
        """2 coordinates: location = ref + offset / (W_l, H_l); 4: location = ref_xy + offset/P * ref_wh * 0.5

        Args:
            query: what each query holds.
            value: the L flattened maps; by default the query, before query_pos is added.
            identity: what the result is added to; by default the query, before query_pos is added.
            query_pos: added to the query, and to nothing else.
            key_padding_mask: True marks a cell of padding. It is set to zero after value_proj, so that the
                bias does not reach it, and the weights are not renormalised.
            reference_points: (x, y) or (x, y, w, h), in units of each (padded) map's width and height.
            spatial_shapes: (H, W) of each map.
            level_start_index: the cell at which each map begins.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
            TypeError: key_padding_mask is not boolean.
        """
        value = query if value is None else value
        identity = query if identity is None else identity
        self._check_arguments(query, value, identity, query_pos, key_padding_mask, reference_points)
        self._check_levels(value, spatial_shapes, level_start_index)
        if query_pos is not None:
            query = query + query_pos

        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0)
        value = value.unflatten(-1, (self.config.num_heads, -1))

        locations = self._sampling_locations(query, reference_points, spatial_shapes)
        weights = self._softmax_weights(query).to(value.dtype)  # autocast on CUDA computes a softmax in float32
        output = self.core(value, spatial_shapes, level_start_index, locations, weights)
        return identity + self.dropout(self.output_proj(output))

    def _sampling_locations(
        self,
        query: Float[Tensor, "batch query embed"],
        reference_points: Float[Tensor, "batch query level coordinate"],
        spatial_shapes: Int[Tensor, "level 2"],
    ) -> Float[Tensor, "batch query head level point 2"]:
        heads, levels, points = self.config.num_heads, self.config.num_levels, self.config.num_points
        offset = self.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
        wide = torch.promote_types(torch.promote_types(offset.dtype, reference_points.dtype), torch.float32)
        offset, reference = offset.to(wide), reference_points.to(wide)[:, :, None, :, None]
        if reference.shape[-1] == 2:
            size = spatial_shapes.flip(-1).clamp(min=1)[:, None]  # (W, H); an empty map must not divide by 0
            return reference + offset / size
        return reference[..., :2] + offset / points * reference[..., 2:] * 0.5

    def _softmax_weights(
        self, query: Float[Tensor, "batch query embed"]
    ) -> Float[Tensor, "batch query head level point"]:
        heads, levels, points = self.config.num_heads, self.config.num_levels, self.config.num_points
        logits = self.attention_weights(query).unflatten(-1, (heads, levels * points))
        return logits.softmax(-1).unflatten(-1, (levels, points))

    def _check_arguments(
        self,
        query: Tensor,
        value: Tensor,
        identity: Tensor,
        query_pos: Tensor | None,
        key_padding_mask: Tensor | None,
        reference_points: Tensor,
    ) -> None:
        embed, levels = self.config.embed_dim, self.config.num_levels
        for name, tensor in (("query", query), ("value", value)):
            if tensor.ndim != 3 or tensor.shape[-1] != embed:
                raise ValueError(f"{name} must be (batch, length, {embed}), got {tuple(tensor.shape)}")
        if value.shape[0] != query.shape[0]:
            raise ValueError(f"value {tuple(value.shape)} and query {tuple(query.shape)} differ in batch")
        for name, added in (("identity", identity), ("query_pos", query_pos)):
            if added is not None and added.shape != query.shape:
                raise ValueError(f"{name} {tuple(added.shape)} must have the shape of query, {tuple(query.shape)}")
        if key_padding_mask is not None and key_padding_mask.shape != value.shape[:2]:
            raise ValueError(
                f"key_padding_mask {tuple(key_padding_mask.shape)} must have the batch and length of value, "
                f"{tuple(value.shape[:2])}"
            )
        if key_padding_mask is not None and key_padding_mask.dtype != torch.bool:
            raise TypeError(f"key_padding_mask must be bool (True is padding), got {key_padding_mask.dtype}")
        leading = (*query.shape[:2], levels)
        if reference_points.shape not in {(*leading, 2), (*leading, 4)}:
            raise ValueError(
                f"reference_points must be (batch, query, level, 2 or 4) = {leading} and 2 or 4, "
                f"got {tuple(reference_points.shape)}"
            )

    def _check_levels(self, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor) -> None:
        levels = self.config.num_levels
        if spatial_shapes.shape != (levels, 2):
            raise ValueError(
                f"spatial_shapes must be ({levels}, 2), one (H, W) for each of num_levels, "
                f"got {tuple(spatial_shapes.shape)}"
            )
        check_levels(value, spatial_shapes, level_start_index)


def build(
    config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None = None, core: DeformableCore = ms_deform_attn
) -> MultiScaleDeformableAttention:
    """The module with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(MultiScaleDeformableAttention(config, core), state_dict)
