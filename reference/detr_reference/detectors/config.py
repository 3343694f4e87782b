"""Sizes of the detectors, and in DINO a switch for each of its improvements.

Source: DINO, arXiv:2203.03605, section 4 and appendix; read with IDEA-Research/DINO, config/DINO/DINO_4scale.py, and
detrex, projects/dino/configs/models/dino_r50.py. The sources of the other models stand where they do.
"""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_heads, check_probabilities, check_sine_channels, check_sizes
from detr_reference.features.config import ChannelMapperConfig, ResNetConfig
from detr_reference.queries.config import SELECTIONS, DINODecoderConfig
from detr_reference.transformer.config import DeformableLayerConfig, TransformerLayerConfig, TransformerStackConfig

ENCODER_ORDER = ("self_attn", "norm", "ffn", "norm")
DECODER_ORDER = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")
DENOISING = ("contrastive", "plain", "none")


@dataclass(frozen=True)
class DETRConfig:
    """Sizes of DETR; the defaults are those of the published one with ResNet-50.

    Args:
        num_classes: K, the class ids; there is one logit more, for "no object". COCO's ids go up to 90, hence 91.
        num_queries: Q, the boxes predicted for every image.
        embed_dim: C, the channels of the transformer; a multiple of 4, and of num_heads.
        num_heads: heads of each attention.
        feedforward_dim: hidden channels of the feed-forward networks.
        num_encoder_layers, num_decoder_layers: layers of the transformer.
        dropout: in training, of attention weights, of what attentions add, and in the feed-forward networks.
        backbone_blocks, backbone_width, backbone_dilation, backbone_frozen_stages: see `ResNetConfig`; DETR-DC5 has
            backbone_dilation.

    Raises:
        ValueError: a part refuses its sizes, or embed_dim is no multiple of 4.
    """

    num_classes: int = 91
    num_queries: int = 100
    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 2048
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    dropout: float = 0.1
    backbone_blocks: tuple[int, ...] = (3, 4, 6, 3)
    backbone_width: int = 64
    backbone_dilation: bool = False
    backbone_frozen_stages: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "num_classes", "num_queries")
        check_sine_channels(self)
        _ = self.backbone, self.encoder, self.decoder  # the parts check their own fields

    @property
    def backbone(self) -> ResNetConfig:
        return ResNetConfig(
            self.backbone_blocks,
            self.backbone_width,
            dilation=self.backbone_dilation,
            frozen_stages=self.backbone_frozen_stages,
        )

    @property
    def encoder(self) -> TransformerStackConfig:
        """Post-norm layers, and nothing after the last."""
        return TransformerStackConfig(self._layer(ENCODER_ORDER), self.num_encoder_layers)

    @property
    def decoder(self) -> TransformerStackConfig:
        """Post-norm layers; what each gives out passes one further norm, shared by all."""
        layer = self._layer(DECODER_ORDER)
        return TransformerStackConfig(layer, self.num_decoder_layers, post_norm=True, return_intermediate=True)

    def _layer(self, order: tuple[str, ...]) -> TransformerLayerConfig:
        rates = (self.dropout, self.dropout, self.dropout)
        return TransformerLayerConfig(
            self.embed_dim, self.num_heads, self.feedforward_dim, *rates, operation_order=order
        )


@dataclass(frozen=True)
class DABDETRConfig:
    """Sizes of DAB-DETR; the defaults are those of the published one with ResNet-50, and COCO's 80 classes.

    Args:
        num_classes: K, the number of classes and of logits: each is a probability of its own, and "no object" is that
            all are small.
        num_queries: Q, the boxes predicted for every image.
        embed_dim: C, the channels of the transformer; a multiple of 4, and of num_heads.
        num_heads: heads of each attention.
        feedforward_dim: hidden channels of the feed-forward networks.
        num_encoder_layers, num_decoder_layers: layers of the transformer. It has no dropout.
        backbone_blocks, backbone_width, backbone_dilation, backbone_frozen_stages: see `ResNetConfig`.

    Raises:
        ValueError: a part refuses its sizes, or embed_dim is no multiple of 4.
    """

    num_classes: int = 80
    num_queries: int = 300
    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 2048
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    backbone_blocks: tuple[int, ...] = (3, 4, 6, 3)
    backbone_width: int = 64
    backbone_dilation: bool = False
    backbone_frozen_stages: int = 1

    def __post_init__(self) -> None:
        check_heads(self)
        check_sizes(self, "num_classes", "num_queries", "feedforward_dim", "num_encoder_layers", "num_decoder_layers")
        check_sine_channels(self)
        _ = self.backbone  # checks its own fields

    @property
    def backbone(self) -> ResNetConfig:
        return ResNetConfig(
            self.backbone_blocks,
            self.backbone_width,
            dilation=self.backbone_dilation,
            frozen_stages=self.backbone_frozen_stages,
        )


@dataclass(frozen=True)
class DNDETRConfig(DABDETRConfig):
    """Sizes of DN-DETR and of its noise; the defaults are those of the published one.

    Args:
        denoising_groups: how often each true box is noised.
        label_noise_probability: that a label is drawn anew.
        box_noise_scale: how far centres and sizes move.

    Raises:
        ValueError: as in DABDETRConfig, or a setting of the noise is out of range.
    """

    denoising_groups: int = 5
    label_noise_probability: float = 0.2
    box_noise_scale: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "denoising_groups")
        check_probabilities(self, "label_noise_probability", "box_noise_scale")


@dataclass(frozen=True)
class DeformableDETRConfig:
    """Sizes of Deformable DETR; the defaults are those of the published one with ResNet-50, with 80 classes.

    Args:
        num_classes: K, the channels of pred_logits; the published weights have 91.
        num_queries: Q, the boxes predicted for every image.
        box_refinement: whether every decoder layer corrects the box of the one before, with heads of its own.
        two_stage: whether the queries come from the encoder; needs box_refinement.
        embed_dim: C, the channels of the transformer; a multiple of 4, of num_heads and of neck_groups.
        num_heads, feedforward_dim, num_levels, num_points, dropout: see `DeformableLayerConfig`.
        num_encoder_layers, num_decoder_layers: layers of the transformer.
        neck_groups: of the group norms behind the backbone.
        backbone_blocks, backbone_width, backbone_stages, backbone_frozen_stages: see `ResNetConfig`.

    Raises:
        ValueError: a part refuses its sizes, embed_dim is no multiple of 4, or two_stage comes without box_refinement.
    """

    num_classes: int = 80
    num_queries: int = 300
    box_refinement: bool = False
    two_stage: bool = False
    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 1024
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    num_levels: int = 4
    num_points: int = 4
    dropout: float = 0.1
    neck_groups: int = 32
    backbone_blocks: tuple[int, ...] = (3, 4, 6, 3)
    backbone_width: int = 64
    backbone_stages: tuple[int, ...] = (2, 3, 4)
    backbone_frozen_stages: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "num_classes", "num_queries", "num_encoder_layers", "num_decoder_layers")
        check_sine_channels(self)
        if self.two_stage and not self.box_refinement:
            raise ValueError("two_stage needs box_refinement: its proposals are boxes that the decoder corrects")
        _ = self.layer, self.neck  # the parts check their own fields

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
        """Of encoder and decoder."""
        return DeformableLayerConfig(
            self.embed_dim, self.num_heads, self.feedforward_dim, self.num_levels, self.num_points, self.dropout
        )


@dataclass(frozen=True)
class DINOConfig:
    """Sizes of DINO; the defaults are those of the published one with ResNet-50 and four scales.

    That is, as detrex has it: 80 classes, separate heads. The original has num_classes=91, label_embedding_size=92,
    shared_heads=True.

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
