"""DINO's decoder: layers around deformable attention that move their reference boxes, and predict at every layer.

Source: DINO, arXiv:2203.03605, sections 3.1 and 3.5; DAB-DETR, arXiv:2201.12329, section 4 (query positions from
boxes); read with IDEA-Research/DINO, models/dino/deformable_transformer.py (`TransformerDecoder`) and dino.py, and
detrex, projects/dino/modeling. Clauses: spec chapter 12.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import DeformableCore
from detr_reference.detectors.detection_heads import box_head, class_head
from detr_reference.every_block.parameters import with_parameters
from detr_reference.feed_forward.config import MLPConfig
from detr_reference.feed_forward.mlp import MLP
from detr_reference.positions.box_position_embedding import box_position_embedding
from detr_reference.queries.config import DINODecoderConfig
from detr_reference.queries.look_forward_twice import References, initial_references, next_references, predicted_boxes
from detr_reference.queries.reference_points import decoder_reference_points
from detr_reference.transformer.deformable_layer import DeformableDecoderLayer
from detr_reference.transformer.deformable_transformer_init import reset_deformable_layers


class DINODecoder(nn.Module):
    """The decoder without its heads, which belong to the model:

        pos_i  = ref_point_head(sine(fed_i))               fed_0 = the initial boxes, detached
        out_i  = layer_i(out_{i-1}, memory, pos_i, fed_i)   out_{-1} = query
        boxes_i = sigmoid(box_i(norm(out_i)) + logit(returned_i)),  logits_i = class_i(norm(out_i))
        fed_{i+1} = sigmoid(box_i(out_i) + logit(fed_i)), detached;  returned_{i+1}: see `look_forward_twice.py`

    Parameters:
        layers.{i}: DeformableDecoderLayer.
        norm: nn.LayerNorm, one for all layers.
        ref_point_head: MLP of two layers, 2C -> C -> C.

    Args:
        config: the sizes.
        core: the sampling function, see `MultiScaleDeformableAttention`.
    """

    def __init__(self, config: DINODecoderConfig, core: DeformableCore = ms_deform_attn) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(DeformableDecoderLayer(config.layer, core) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.embed_dim)
        self.ref_point_head = MLP(MLPConfig(2 * config.embed_dim, config.embed_dim, config.embed_dim, num_layers=2))
        reset_deformable_layers(self)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        memory: Float[Tensor, "batch cell embed"],
        reference_points: Float[Tensor, "batch query 4"],
        box_heads: Iterable[nn.Module],
        class_heads: Iterable[nn.Module],
        attn_mask: Bool[Tensor, "query query"] | None = None,
        key_padding_mask: Bool[Tensor, "batch cell"] | None = None,
        *,
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
        valid_ratios: Float[Tensor, "batch level 2"],
        learned_references: bool = False,
    ) -> dict[str, Tensor]:
        """What every layer predicts.

        Args:
            query: the content of each query.
            memory: the L flattened maps that the encoder returned.
            reference_points: the initial boxes (x, y, w, h), relative to the image, after any sigmoid. They get no
                gradient.
            box_heads: of each layer, C -> 4; the same module several times where heads are shared.
            class_heads: of each layer, C -> K.
            attn_mask: True forbids a query (row) to attend to another (column), in every layer.
            key_padding_mask: True marks a cell of padding, which no layer reads from.
            spatial_shapes: (H, W) of each map.
            level_start_index: the cell at which each map begins.
            valid_ratios: (w, h), the share of each map that the image fills.
            learned_references: the initial boxes are parameters and do get their gradient, as there is no encoder's
                loss to train them (DAB-DETR, DN-DETR).

        Returns:
            hidden_states: (layer, B, Q, C), norm(out_i).
            references: (layer + 1, B, Q, 4), returned_0 to returned_n, the last being what a further layer would get.
            pred_logits: (layer, B, Q, K).
            pred_boxes: (layer, B, Q, 4), relative to the image.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
            TypeError: a mask is of a type that it cannot have.
        """
        self._check_arguments(query, reference_points, valid_ratios)
        twice, eps = self.config.look_forward_twice, self.config.eps
        wide = torch.promote_types(query.dtype, torch.float32)  # boxes and ratios, whatever the dtype of the tokens
        valid_ratios = valid_ratios.to(wide)
        initial = reference_points.to(wide)
        references = References(initial, initial) if learned_references else initial_references(initial)
        states, returned, logits, boxes = [], [references.returned], [], []
        for layer, to_delta, to_logits in zip(self.layers, box_heads, class_heads, strict=True):
            query = layer(
                query,
                memory,
                self._query_pos(references.fed, valid_ratios).to(query.dtype),
                attn_mask,
                key_padding_mask,
                reference_points=decoder_reference_points(references.fed, valid_ratios),
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
            )
            state = self.norm(query)
            states.append(state)
            logits.append(to_logits(state))
            boxes.append(predicted_boxes(to_delta(state), references, eps=eps))
            references = next_references(to_delta(query), references, twice=twice, eps=eps)
            returned.append(references.returned)
        found = {"hidden_states": states, "references": returned, "pred_logits": logits, "pred_boxes": boxes}
        return {name: torch.stack(layers).to(query.dtype) for name, layers in found.items()}

    def _query_pos(
        self, boxes: Float[Tensor, "batch query 4"], valid_ratios: Float[Tensor, "batch level 2"]
    ) -> Float[Tensor, "batch query embed"]:
        if self.config.embed_scaled_references:
            boxes = decoder_reference_points(boxes, valid_ratios)[:, :, 0]
        embedded = box_position_embedding(boxes, num_pos_feats=self.config.embed_dim // 2)
        return self.ref_point_head(embedded.to(self.norm.weight.dtype))

    def _check_arguments(self, query: Tensor, reference_points: Tensor, valid_ratios: Tensor) -> None:
        if reference_points.shape != (*query.shape[:2], 4):
            raise ValueError(
                f"reference_points must be (batch, query, 4) = {(*query.shape[:2], 4)}, "
                f"got {tuple(reference_points.shape)}"
            )
        expected = (query.shape[0], self.config.num_levels, 2)
        if valid_ratios.shape != expected:
            raise ValueError(f"valid_ratios must be (batch, level, 2) = {expected}, got {tuple(valid_ratios.shape)}")


class DINODecoderWithHeads(DINODecoder):
    """The decoder with heads of its own, n of each kind or, shared, one.

    Parameters, besides those of `DINODecoder`:
        bbox_embed.{i}: MLP of three layers, C -> C -> C -> 4.
        class_embed.{i}: nn.Linear, C -> K.
    """

    def __init__(self, config: DINODecoderConfig, core: DeformableCore = ms_deform_attn) -> None:
        super().__init__(config, core)
        heads = 1 if config.shared_heads else config.num_layers
        self.bbox_embed = nn.ModuleList(box_head(config.embed_dim) for _ in range(heads))
        self.class_embed = nn.ModuleList(class_head(config.embed_dim, config.num_classes) for _ in range(heads))

    def forward(  # type: ignore[override]
        self,
        query: Float[Tensor, "batch query embed"],
        memory: Float[Tensor, "batch cell embed"],
        reference_points: Float[Tensor, "batch query 4"],
        attn_mask: Bool[Tensor, "query query"] | None = None,
        key_padding_mask: Bool[Tensor, "batch cell"] | None = None,
        *,
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
        valid_ratios: Float[Tensor, "batch level 2"],
    ) -> dict[str, Tensor]:
        """As `DINODecoder.forward`, with these heads."""
        repeats = self.config.num_layers if self.config.shared_heads else 1
        return super().forward(
            query,
            memory,
            reference_points,
            list(self.bbox_embed) * repeats,
            list(self.class_embed) * repeats,
            attn_mask,
            key_padding_mask,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios,
        )


def build(
    config: DINODecoderConfig, state_dict: Mapping[str, Tensor] | None = None, core: DeformableCore = ms_deform_attn
) -> DINODecoderWithHeads:
    """The decoder with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(DINODecoderWithHeads(config, core), state_dict)
