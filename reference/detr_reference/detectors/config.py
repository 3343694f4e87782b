"""Sizes of DINO, and a switch for each of its improvements.

Source: DINO, arXiv:2203.03605, section 4 and appendix; read with IDEA-Research/DINO, config/DINO/DINO_4scale.py, and
detrex, projects/dino/configs/models/dino_r50.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_sizes
from detr_reference.features.channel_mapper import ChannelMapperConfig
from detr_reference.features.resnet import ResNetConfig
from detr_reference.queries.dino_decoder import DINODecoderConfig
from detr_reference.queries.mixed_query_selection import SELECTIONS
from detr_reference.transformer.deformable_layer import DeformableLayerConfig

DENOISING = ("contrastive", "plain", "none")


@dataclass(frozen=True)
class DINOConfig:
    """The defaults are the published DINO with ResNet-50 and four scales, as detrex has it: 80 classes, separate heads.

    The original has num_classes=91, label_embedding_size=92, shared_heads=True.

    Args:
        num_classes: K, the channels of all logits.
        num_queries: Q, the matching queries.
        query_selection: where the queries come from: "mixed", "pure" or "static", see `mixed_query_selection`.
        look_forward_twice: whether a prediction trains the box head of the layer before as well.
        denoising: "contrastive" (DINO), "plain" (DN-DETR's noise, without negatives) or "none".
        denoising_number: about how many boxes an image has in all denoising groups, see `denoising_groups`.
        label_noise_ratio: twice the probability that a denoising query's label is drawn anew.
        box_noise_scale: how far a denoising query's box is moved, see `contrastive_denoising` and `dn_denoising`.
            DINO's published configuration file says 0.4, but every published run sets 1.0.
        label_embedding_size: rows of the label embedding, of which the first num_classes are used; None means as many
            as classes.
        shared_heads: one class and one box head for all decoder layers, or one of each a layer. The first stage has
            its own.
        embed_scaled_references: whether query positions are made of boxes relative to the padded map, as published, or
            relative to the image, see `DINODecoderConfig`.
        position_temperature, position_offset: of the cells' sine embedding; detrex's 12-epoch weights have 10000
            and -0.5.
        embed_dim: C, the channels of the transformer; a multiple of 4, of num_heads and of neck_groups.
        num_heads, feedforward_dim, num_levels, num_points, dropout: see `DeformableLayerConfig`.
        num_encoder_layers, num_decoder_layers: layers of the transformer.
        neck_groups: of the group norms behind the backbone.
        backbone_blocks, backbone_width, backbone_stages, backbone_frozen_stages: see `ResNetConfig`. DINO with five
            scales has backbone_stages=(1, 2, 3, 4) and num_levels=5.

    Raises:
        ValueError: a part refuses its sizes, a switch has an unknown value, or a number is out of its range.
    """

    num_classes: int = 80
    num_queries: int = 900
    query_selection: str = "mixed"
    look_forward_twice: bool = True
    denoising: str = "contrastive"
    denoising_number: int = 100
    label_noise_ratio: float = 0.5
    box_noise_scale: float = 1.0
    label_embedding_size: int | None = None
    shared_heads: bool = False
    embed_scaled_references: bool = True
    position_temperature: float = 20.0
    position_offset: float = 0.0
    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 2048
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    num_levels: int = 4
    num_points: int = 4
    dropout: float = 0.0
    neck_groups: int = 32
    backbone_blocks: tuple[int, ...] = (3, 4, 6, 3)
    backbone_width: int = 64
    backbone_stages: tuple[int, ...] = (2, 3, 4)
    backbone_frozen_stages: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "num_queries", "num_encoder_layers", "denoising_number")
        for name, allowed in (("query_selection", SELECTIONS), ("denoising", DENOISING)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.label_rows < self.num_classes:
            raise ValueError(
                f"label_embedding_size must be at least num_classes, got {self.label_embedding_size} and "
                f"{self.num_classes}"
            )
        if not 0 <= self.label_noise_ratio <= 1:
            raise ValueError(f"label_noise_ratio must lie between 0 and 1, got {self.label_noise_ratio}")
        if not self.box_noise_scale >= 0:
            raise ValueError(f"box_noise_scale must not be negative, got {self.box_noise_scale}")
        _ = self.decoder, self.neck  # the parts check their own fields

    @property
    def two_stage(self) -> bool:
        """Whether the encoder proposes boxes."""
        return self.query_selection != "static"

    @property
    def label_rows(self) -> int:
        """Rows of the label embedding."""
        return self.num_classes if self.label_embedding_size is None else self.label_embedding_size

    @property
    def backbone(self) -> ResNetConfig:
        return ResNetConfig(
            self.backbone_blocks,
            self.backbone_width,
            self.backbone_stages,
            frozen_stages=self.backbone_frozen_stages,
        )

    @property
    def neck(self) -> ChannelMapperConfig:
        return ChannelMapperConfig(self.backbone.channels, self.embed_dim, self.num_levels, self.neck_groups)

    @property
    def layer(self) -> DeformableLayerConfig:
        """Of the encoder."""
        return self.decoder.layer

    @property
    def decoder(self) -> DINODecoderConfig:
        return DINODecoderConfig(
            embed_dim=self.embed_dim,
            num_heads=self.num_heads,
            feedforward_dim=self.feedforward_dim,
            num_layers=self.num_decoder_layers,
            num_levels=self.num_levels,
            num_points=self.num_points,
            num_classes=self.num_classes,
            dropout=self.dropout,
            look_forward_twice=self.look_forward_twice,
            shared_heads=self.shared_heads,
            embed_scaled_references=self.embed_scaled_references,
        )
