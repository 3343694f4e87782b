"""The encoder of Deformable DETR and DINO: every cell of every map looks around itself on all maps.

Source: Deformable DETR, arXiv:2010.04159, section 4.1; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py (DeformableTransformerEncoder). See spec chapter 18.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import DeformableCore
from detr_reference.features.feature_levels import FeatureLevels
from detr_reference.queries.reference_points import reference_points_of_cells
from detr_reference.transformer.config import DeformableLayerConfig
from detr_reference.transformer.deformable_layer import DeformableEncoderLayer


class DeformableEncoder(nn.Module):
    """x_i = layer_i(x_{i-1}, pos, references), x_0 = features; out = x_N, without a final norm

    Positions and reference points are the same for every layer: a cell stays where it is.

    Parameters: layers.{i}, `DeformableEncoderLayer`.

    Args:
        config: of every layer.
        num_layers: N; each has its own parameters.
        core: the sampling function, see `MultiScaleDeformableAttention`.
    """

    def __init__(self, config: DeformableLayerConfig, num_layers: int, core: DeformableCore = ms_deform_attn) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DeformableEncoderLayer(config, core) for _ in range(num_layers))

    def forward(self, levels: FeatureLevels) -> Float[Tensor, "batch cell embed"]:
        """The memory: what the cells hold after having looked around.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
        """
        references = reference_points_of_cells(levels.sizes, levels.valid_ratios)
        memory = levels.features
        for layer in self.layers:
            memory = layer(
                memory,
                levels.positions,
                levels.padding,
                reference_points=references,
                spatial_shapes=levels.spatial_shapes,
                level_start_index=levels.level_start_index,
            )
        return memory
