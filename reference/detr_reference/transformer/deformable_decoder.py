"""The decoder of Deformable DETR: queries with a fixed position, and references that may be refined layer by layer.

Source: Deformable DETR, arXiv:2010.04159, sections 4.1 and 4.2; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (DeformableTransformerDecoder) and models/deformable_detr.py. See spec chapter 18.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import DeformableCore
from detr_reference.features.feature_levels import FeatureLevels
from detr_reference.queries.box_refinement import refine_boxes
from detr_reference.queries.reference_points import decoder_reference_points
from detr_reference.transformer.config import DeformableLayerConfig
from detr_reference.transformer.deformable_layer import DeformableDecoderLayer

LOGIT_EPS = 1e-5


class DeformableDecoder(nn.Module):
    """x_i = layer_i(x_{i-1}, pos, memory, ref_{i-1}); box_i = sigmoid(head_i(x_i) + logit(ref_{i-1}))

    ref_i = ref_0 without refinement, and detach(box_i) with it. No norm comes after the last layer.

    Parameters: layers.{i}, `DeformableDecoderLayer`. The box heads belong to the model.

    Args:
        config: of every layer.
        num_layers: N; each has its own parameters.
        box_refinement: whether the box of a layer is the reference of the next.
        core: the sampling function, see `MultiScaleDeformableAttention`.
    """

    def __init__(
        self,
        config: DeformableLayerConfig,
        num_layers: int,
        box_refinement: bool,
        core: DeformableCore = ms_deform_attn,
    ) -> None:
        super().__init__()
        self.box_refinement = box_refinement
        self.layers = nn.ModuleList(DeformableDecoderLayer(config, core) for _ in range(num_layers))

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        query_pos: Float[Tensor, "batch query embed"],
        memory: Float[Tensor, "batch cell embed"],
        levels: FeatureLevels,
        reference_points: Float[Tensor, "batch query coordinate"],
        bbox_embed: Sequence[nn.Module],
    ) -> tuple[Float[Tensor, "layer batch query embed"], Float[Tensor, "layer batch query 4"]]:
        """What the queries hold after each layer, and the box that each then predicts.

        Args:
            query: what each query holds.
            query_pos: its position, the same in all layers.
            memory: what the cells hold; their geometry is that of levels.
            reference_points: (x, y) or (x, y, w, h), relative to the image.
            bbox_embed: the box head of each layer, possibly the same for all.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
        """
        reference = reference_points.to(torch.promote_types(reference_points.dtype, torch.float32))
        hidden_states, boxes = [], []
        for layer, head in zip(self.layers, bbox_embed, strict=True):
            query = layer(
                query,
                memory,
                query_pos,
                key_padding_mask=levels.padding,
                reference_points=decoder_reference_points(reference, levels.valid_ratios),
                spatial_shapes=levels.spatial_shapes,
                level_start_index=levels.level_start_index,
            )
            box = refine_boxes(head(query), reference, eps=LOGIT_EPS)
            if self.box_refinement:
                reference = box.detach()
            hidden_states.append(query)
            boxes.append(box)
        return torch.stack(hidden_states), torch.stack(boxes).to(query.dtype)
