"""DINO: a Deformable DETR that begins with what its encoder saw, refines boxes, and learns from noised ground truth.

Each improvement is a file that can be read alone: `two_stage_proposals`, `query_selection`, `mixed_query_selection`,
`contrastive_denoising`, `denoising_mask`, `box_refinement`, `look_forward_twice`. Here they are put together; the
numbers are those of the page of pseudocode in spec chapter 19, where the purpose of every step is told.

Source: DINO, arXiv:2203.03605; read with IDEA-Research/DINO, models/dino/dino.py and deformable_transformer.py, and
detrex, projects/dino/modeling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import DeformableCore
from detr_reference.denoising.contrastive_denoising import contrastive_denoising, denoising_groups
from detr_reference.denoising.dn_denoising import dn_denoising
from detr_reference.detectors.config import DINOConfig
from detr_reference.detectors.detection_heads import box_head, class_head
from detr_reference.every_block.parameters import with_parameters
from detr_reference.features.backbone import Backbone
from detr_reference.features.channel_mapper import ChannelMapper
from detr_reference.features.feature_levels import FeatureLevels, flatten_levels
from detr_reference.features.image_tokens import check_images
from detr_reference.features.resnet import ResNet
from detr_reference.losses.batch_targets import BatchTargets, targets_if_given
from detr_reference.queries.dino_decoder import DINODecoder
from detr_reference.queries.mixed_query_selection import initial_queries
from detr_reference.queries.query_selection import select_queries
from detr_reference.queries.two_stage_proposals import encoder_proposals
from detr_reference.transformer.deformable_encoder import DeformableEncoder
from detr_reference.transformer.deformable_transformer_init import reset_deformable_transformer


class DINOTransformer(nn.Module):
    """What stands between neck and heads; `DINO` says how it is put together.

    Parameters (C = embed_dim, L levels):
        level_embeds: (L, C), one vector a level.
        encoder.layers.{i}: see `DeformableEncoder`.
        decoder: see `DINODecoder`.
        enc_output, linear, C -> C, and its nn.LayerNorm enc_output_norm: unless selection is "static".
        tgt_embed.weight: (num_queries, C), learned content, unless selection is "pure".
        refpoint_embed.weight: (num_queries, 4), logits of learned boxes, if selection is "static".
    """

    def __init__(self, config: DINOConfig, core: DeformableCore) -> None:
        super().__init__()
        embed, queries = config.embed_dim, config.num_queries
        self.level_embeds = nn.Parameter(torch.empty(config.num_levels, embed))
        self.encoder = DeformableEncoder(config.layer, config.num_encoder_layers, core)
        self.decoder = DINODecoder(config.decoder, core)
        if config.two_stage:
            self.enc_output = nn.Linear(embed, embed)
            self.enc_output_norm = nn.LayerNorm(embed)
        self.tgt_embed = nn.Embedding(queries, embed) if config.query_selection != "pure" else None
        self.refpoint_embed = nn.Embedding(queries, 4) if config.query_selection == "static" else None
        reset_deformable_transformer(self)
        if self.refpoint_embed is not None:  # boxes of every place and size
            nn.init.uniform_(self.refpoint_embed.weight)
            self.refpoint_embed.weight.data.logit_(eps=0.05)


class DINO(nn.Module):
    """The detector.

    Parameters (C = embed_dim, n decoder layers):
        backbone: see `ResNet`.
        neck: see `ChannelMapper`.
        transformer: see `DINOTransformer`.
        class_embed.{i}, bbox_embed.{i}: heads, see `detection_heads`. Layer i has the heads i, or, with shared heads,
            all layers those of index 0. The last ones belong to the first stage, which has its own in either case.
        label_enc.weight: (label_embedding_size, C), the content of denoising queries; unless denoising is "none".

    Args:
        config: the sizes and switches.
        core: the sampling function, see `MultiScaleDeformableAttention`.
        backbone: another backbone than the configured ResNet, such as an `AutoBackbone`.
    """

    def __init__(
        self, config: DINOConfig, core: DeformableCore = ms_deform_attn, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = ResNet(config.backbone) if backbone is None else backbone
        self.neck = ChannelMapper(replace(config.neck, in_channels=self.backbone.channels))
        self.transformer = DINOTransformer(config, core)
        heads = (1 if config.shared_heads else config.num_decoder_layers) + config.two_stage
        self.class_embed = nn.ModuleList(class_head(config.embed_dim, config.num_classes) for _ in range(heads))
        self.bbox_embed = nn.ModuleList(box_head(config.embed_dim) for _ in range(heads))
        if config.denoising != "none":
            self.label_enc = nn.Embedding(config.label_rows, config.embed_dim)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        mask: Bool[Tensor, "batch height width"],
        target_labels: Int[Tensor, " box"] | None = None,
        target_boxes: Float[Tensor, "box 4"] | None = None,
        target_counts: Int[Tensor, " batch"] | None = None,
    ) -> dict[str, Tensor]:
        """The predictions of every decoder layer, the final ones last.

        Args:
            images: normalised, and zero where padded, on the right and at the bottom.
            mask: True = padding.
            target_labels, target_boxes, target_counts: what is to be found, see `BatchTargets`. Needed for denoising,
                and used in training mode alone.

        Returns:
            pred_logits: (layer, batch, query, num_classes).
            pred_boxes: (layer, batch, query, 4), cxcywh, relative to the image.
            enc_logits, enc_boxes: (batch, query, num_classes) and (batch, query, 4), the first stage's predictions of
                the selected cells, in falling order of their score; unless selection is "static".
            dn_logits, dn_boxes: as pred_logits and pred_boxes, of the denoising queries; in training with targets,
                unless denoising is "none". Without any box they have no queries.

        Raises:
            ValueError: shapes disagree, only a part of the targets is given, or the maps have fewer cells than there
                are queries to select.
            TypeError: mask is not boolean, or labels or counts are not int64.
        """
        check_images(images, mask)
        config, transformer = self.config, self.transformer
        targets = targets_if_given(
            target_labels, target_boxes, target_counts, batch=len(images), num_classes=config.num_classes
        )

        # 1. Feature maps of several scales, and 2. all of them as one sequence of cells.
        maps = self.neck(self.backbone(images))
        levels = flatten_levels(
            maps,
            mask,
            transformer.level_embeds,
            temperature=config.position_temperature,
            offset=config.position_offset,
        )
        # 3. Every cell looks around itself, on all maps.
        memory = transformer.encoder(levels)

        # 4. to 6. Every cell proposes a box; the best become queries.
        selected = self._selected_cells(memory, levels) if config.two_stage else None

        # 7. What the queries hold is learned; where they look comes from the selected cells.
        content, references = initial_queries(
            config.query_selection,
            len(images),
            learned_content=_weight(transformer.tgt_embed),
            learned_references=_weight(transformer.refpoint_embed),
            selected=selected,
        )
        # 8. to 10. In training, noised ground truth in front of them, and a mask so that nobody reads the answer.
        attn_mask = None
        if self.training and config.denoising != "none":
            content = content + 0 * self.label_enc.weight[0, 0]  # no parameter without a gradient, whatever the batch
            if targets is not None:
                denoising = self._denoising_queries(targets)
                content = torch.cat((denoising["content"], content), dim=1)
                references = torch.cat((denoising["references"], references), dim=1)
                attn_mask = denoising["attn_mask"]

        # 11. and 12. Decoder layers look, move their boxes and predict.
        layers = config.num_decoder_layers
        wide = torch.promote_types(references.dtype, torch.float32)
        decoded = transformer.decoder(
            content,
            memory,
            references.to(wide).sigmoid(),
            _per_layer(self.bbox_embed, layers, config.shared_heads),
            _per_layer(self.class_embed, layers, config.shared_heads),
            attn_mask,
            levels.padding,
            spatial_shapes=levels.spatial_shapes,
            level_start_index=levels.level_start_index,
            valid_ratios=levels.valid_ratios,
            learned_references=not config.two_stage,
        )
        # 13. Denoising and matching queries part again.
        start = content.shape[1] - config.num_queries
        predictions = {name: decoded[name][:, :, start:] for name in ("pred_logits", "pred_boxes")}
        if selected is not None:
            predictions |= {"enc_logits": selected["logits"], "enc_boxes": selected["proposals"].sigmoid()}
        if attn_mask is not None:
            predictions |= {
                "dn_logits": decoded["pred_logits"][:, :, :start],
                "dn_boxes": decoded["pred_boxes"][:, :, :start],
            }
        return predictions

    def _selected_cells(self, memory: Float[Tensor, "batch cell embed"], levels: FeatureLevels) -> dict[str, Tensor]:
        """Steps 4 to 6: `select_queries` of the first stage's predictions, and the logits of what was selected."""
        # 4. A box for every cell, by its place and level.
        found = encoder_proposals(memory, levels.padding, levels.spatial_shapes)
        # 5. What is in it, and how it has to be corrected.
        features = self.transformer.enc_output_norm(self.transformer.enc_output(found["memory"]))
        logits = self.class_embed[-1](features)
        proposals = self.bbox_embed[-1](features) + found["proposals"]
        # 6. The cells of which the heads are surest.
        selected = select_queries(logits, proposals, features, num_queries=self.config.num_queries, score="max")
        rows = selected["indices"][..., None].expand(-1, -1, logits.shape[-1])
        return {**selected, "logits": logits.gather(1, rows)}

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        """Steps 8 to 10: see `contrastive_denoising` and `dn_denoising`."""
        config = self.config
        label_embedding = self.label_enc.weight[: config.num_classes]
        if config.denoising == "contrastive":
            return contrastive_denoising(
                *targets,
                label_embedding,
                num_queries=config.num_queries,
                denoising_number=config.denoising_number,
                label_noise_ratio=config.label_noise_ratio,
                box_noise_scale=config.box_noise_scale,
            )
        return dn_denoising(
            *targets,
            label_embedding,
            num_queries=config.num_queries,
            groups=denoising_groups(targets.counts, config.denoising_number),
            label_noise_probability=config.label_noise_ratio / 2,
            box_noise_scale=config.box_noise_scale,
        )


def _weight(embedding: nn.Embedding | None) -> Tensor | None:
    return None if embedding is None else embedding.weight


def _per_layer(heads: nn.ModuleList, layers: int, shared: bool) -> list[nn.Module]:
    """The head of every decoder layer; the first stage's own one, if there is any, comes after them."""
    return [heads[0]] * layers if shared else list(heads)[:layers]


def build(
    config: DINOConfig, state_dict: Mapping[str, Tensor] | None = None, core: DeformableCore = ms_deform_attn
) -> DINO:
    """The model with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(DINO(config, core), state_dict)
