"""Deformable DETR: plain, with box refinement, and two-stage.

Source: Deformable DETR, arXiv:2010.04159, sections 4.1 and 4.2 and appendix A.4; read with fundamentalvision/
Deformable-DETR, models/deformable_detr.py and models/deformable_transformer.py, and detrex,
projects/deformable_detr/modeling. See spec chapter 18.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import DeformableCore
from detr_reference.detectors.config import DeformableDETRConfig
from detr_reference.detectors.detection_heads import box_head, class_head
from detr_reference.every_block.parameters import with_parameters
from detr_reference.features.backbone import Backbone
from detr_reference.features.channel_mapper import ChannelMapper
from detr_reference.features.feature_levels import FeatureLevels, flatten_levels
from detr_reference.features.image_tokens import check_images
from detr_reference.features.resnet import ResNet
from detr_reference.positions.proposal_position_embedding import proposal_position_embedding
from detr_reference.queries.query_selection import select_queries
from detr_reference.queries.two_stage_proposals import encoder_proposals
from detr_reference.transformer.deformable_decoder import DeformableDecoder
from detr_reference.transformer.deformable_encoder import DeformableEncoder
from detr_reference.transformer.deformable_transformer_init import reset_deformable_transformer

POSITION_TEMPERATURE, POSITION_OFFSET = 10000.0, -0.5
POINT_SIZE_BIAS = -2.0  # w and h of a box whose reference is a point begin with the logit -2


class DeformableTransformer(nn.Module):
    """What stands between neck and heads; `DeformableDETR` says how it is put together.

    Parameters (C = embed_dim, L levels):
        level_embeds: (L, C), one vector a level.
        encoder.layers.{i}, decoder.layers.{i}: see `DeformableEncoder`, `DeformableDecoder`.
        single-stage: reference_points, linear, C -> 2.
        two-stage: enc_output, linear, C -> C, and its nn.LayerNorm enc_output_norm; pos_trans, linear, 2C -> 2C, and
            its nn.LayerNorm pos_trans_norm.
    """

    def __init__(self, config: DeformableDETRConfig, core: DeformableCore) -> None:
        super().__init__()
        embed = config.embed_dim
        self.level_embeds = nn.Parameter(torch.empty(config.num_levels, embed))
        self.encoder = DeformableEncoder(config.layer, config.num_encoder_layers, core)
        self.decoder = DeformableDecoder(config.layer, config.num_decoder_layers, config.box_refinement, core)
        if config.two_stage:
            self.enc_output = nn.Linear(embed, embed)
            self.enc_output_norm = nn.LayerNorm(embed)
            self.pos_trans = nn.Linear(2 * embed, 2 * embed)
            self.pos_trans_norm = nn.LayerNorm(2 * embed)
        else:
            self.reference_points = nn.Linear(embed, 2)
        reset_deformable_transformer(self)
        if not config.two_stage:
            nn.init.zeros_(self.reference_points.bias)


class InitialQueries(NamedTuple):
    """What the decoder begins with.

    Attributes:
        content: what each query holds.
        position: what is added to it in every attention.
        reference: where it looks, (x, y) or (x, y, w, h), relative to the image.
    """

    content: Float[Tensor, "batch query embed"]
    position: Float[Tensor, "batch query embed"]
    reference: Float[Tensor, "batch query coordinate"]


class DeformableDETR(nn.Module):
    """logits_i = class_i(h_i), boxes_i = sigmoid(bbox_i(h_i) + logit(ref_{i-1})), h = decoder(queries, encoder(neck))

    Parameters (C = embed_dim, n decoder layers):
        backbone: see `ResNet`.
        neck: see `ChannelMapper`.
        query_embedding.weight: (num_queries, 2C), position first, content second; single-stage only.
        transformer: see `DeformableTransformer`.
        class_embed.{i}, bbox_embed.{i}: heads, see `detection_heads`. Without refinement index 0 alone serves all
            layers. With it layer i has the heads i, and the last ones, index n, belong to the first of two stages.

    Args:
        config: the sizes.
        core: the sampling function, see `MultiScaleDeformableAttention`.
        backbone: another backbone than the configured ResNet, such as an `AutoBackbone`.
    """

    def __init__(
        self, config: DeformableDETRConfig, core: DeformableCore = ms_deform_attn, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = ResNet(config.backbone) if backbone is None else backbone
        self.neck = ChannelMapper(replace(config.neck, in_channels=self.backbone.channels))
        if not config.two_stage:
            self.query_embedding = nn.Embedding(config.num_queries, 2 * config.embed_dim)
        self.transformer = DeformableTransformer(config, core)
        heads = config.num_decoder_layers + config.two_stage if config.box_refinement else 1
        self.class_embed = nn.ModuleList(class_head(config.embed_dim, config.num_classes) for _ in range(heads))
        # Only the first decoder layer of the single-stage model predicts boxes from points.
        first = 0.0 if config.two_stage else POINT_SIZE_BIAS
        biases = [first] + [0.0] * (heads - 1)
        self.bbox_embed = nn.ModuleList(box_head(config.embed_dim, size_bias=bias) for bias in biases)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], mask: Bool[Tensor, "batch height width"]
    ) -> dict[str, Tensor]:
        """The predictions of every decoder layer, the final ones last.

        Args:
            images: normalised, and zero where padded, on the right and at the bottom.
            mask: True = padding.

        Returns:
            pred_logits: (layer, batch, query, num_classes).
            pred_boxes: (layer, batch, query, 4), cxcywh, relative to the image.
            enc_logits, enc_boxes: two-stage only, (batch, cell, num_classes) and (batch, cell, 4): the first stage's
                predictions of *all* cells. A cell without a proposal has the box (1, 1, 1, 1).

        Raises:
            ValueError: shapes disagree, or the maps have fewer cells than there are queries to select.
            TypeError: mask is not boolean.
        """
        check_images(images, mask)
        levels = flatten_levels(
            self.neck(self.backbone(images)),
            mask,
            self.transformer.level_embeds,
            temperature=POSITION_TEMPERATURE,
            offset=POSITION_OFFSET,
        )
        memory = self.transformer.encoder(levels)
        if self.config.two_stage:
            first_stage = self._first_stage(memory, levels)
            queries = self._selected_queries(first_stage)
        else:
            first_stage = {}
            queries = self._learned_queries(len(images))
        hidden, boxes = self.transformer.decoder(
            queries.content, queries.position, memory, levels, queries.reference, self._per_layer(self.bbox_embed)
        )
        logits = torch.stack([head(h) for head, h in zip(self._per_layer(self.class_embed), hidden, strict=True)])
        predictions = {"pred_logits": logits, "pred_boxes": boxes}
        if first_stage:
            predictions |= {"enc_logits": first_stage["logits"], "enc_boxes": first_stage["proposals"].sigmoid()}
        return predictions

    def _learned_queries(self, batch: int) -> InitialQueries:
        """position, content = query_embedding; reference = sigmoid(linear(position)), the same for every image."""
        position, content = self.query_embedding.weight.expand(batch, -1, -1).chunk(2, dim=-1)
        return InitialQueries(content, position, self.transformer.reference_points(position).sigmoid())

    def _first_stage(self, memory: Float[Tensor, "batch cell embed"], levels: FeatureLevels) -> dict[str, Tensor]:
        """What the last heads say of each cell: its logits, and its proposal with their correction."""
        found = encoder_proposals(memory, levels.padding, levels.spatial_shapes)
        features = self.transformer.enc_output_norm(self.transformer.enc_output(found["memory"]))
        proposals = self.bbox_embed[-1](features) + found["proposals"]
        return {"logits": self.class_embed[-1](features), "proposals": proposals, "memory": features}

    def _selected_queries(self, first_stage: Mapping[str, Tensor]) -> InitialQueries:
        """position, content = norm(linear(sine(proposal))) of the best cells by class channel 0; reference = proposal

        What the cells hold is not handed on, and the proposals are detached: the first stage has a loss of its own.
        """
        selected = select_queries(
            first_stage["logits"],
            first_stage["proposals"],
            first_stage["memory"],
            num_queries=self.config.num_queries,
            score="first",
        )
        proposals = selected["proposals"].detach()
        sine = proposal_position_embedding(proposals, num_pos_feats=self.config.embed_dim // 2)
        query = self.transformer.pos_trans_norm(self.transformer.pos_trans(sine))
        position, content = query.chunk(2, dim=-1)
        return InitialQueries(content, position, proposals.sigmoid())

    def _per_layer(self, heads: nn.ModuleList) -> list[nn.Module]:
        """The head of every decoder layer: its own, or the one for all."""
        layers = self.config.num_decoder_layers
        return list(heads)[:layers] if self.config.box_refinement else [heads[0]] * layers


def build(
    config: DeformableDETRConfig,
    state_dict: Mapping[str, Tensor] | None = None,
    core: DeformableCore = ms_deform_attn,
) -> DeformableDETR:
    """The model with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(DeformableDETR(config, core), state_dict)
