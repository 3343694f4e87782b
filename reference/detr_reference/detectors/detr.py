"""DETR: a set of boxes and classes from one feature map, by a transformer and without anchors or suppression.

Source: DETR, arXiv:2005.12872; read with facebookresearch/detr, models/detr.py, models/transformer.py and
models/backbone.py, and detrex, projects/detr/modeling. Chapter 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.every_block.config_checks import check_sine_channels, check_sizes
from detr_reference.every_block.parameters import with_parameters, xavier_matrices
from detr_reference.features.backbone import Backbone
from detr_reference.features.image_tokens import ImageTokens, check_images, image_tokens
from detr_reference.features.resnet import ResNet, ResNetConfig
from detr_reference.feed_forward.mlp import MLP, MLPConfig
from detr_reference.transformer.layer import DecoderLayer, EncoderLayer, TransformerLayerConfig
from detr_reference.transformer.stack import TransformerStack, TransformerStackConfig

POSITION_TEMPERATURE = 10000.0
ENCODER_ORDER = ("self_attn", "norm", "ffn", "norm")
DECODER_ORDER = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")


@dataclass(frozen=True)
class DETRConfig:
    """Sizes of the model; the defaults are those of the published DETR with ResNet-50.

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


class DETRTransformer(nn.Module):
    """hidden = decoder(0, encoder(cells)): each query gathers from the image what is its own

    Parameters:
        encoder, decoder: see `TransformerStack`.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.encoder = TransformerStack(config.encoder, EncoderLayer)
        self.decoder = TransformerStack(config.decoder, DecoderLayer)
        xavier_matrices(self)

    def forward(
        self, cells: ImageTokens, query_pos: Float[Tensor, "query embed"]
    ) -> Float[Tensor, "layer batch query embed"]:
        """What every decoder layer gives out, normed.

        Args:
            cells: features, position and padding of the map. Positions are added in every layer, to queries and keys.
            query_pos: what tells the queries apart. Their content begins with zero, so that the self-attention of the
                first decoder layer averages zeros: its output is the same for all.
        """
        memory = self.encoder(cells.features, query_pos=cells.position, query_key_padding_mask=cells.padding)
        query_pos = query_pos.expand(len(memory), -1, -1).to(memory.dtype)
        return self.decoder(
            torch.zeros_like(query_pos),
            key=memory,
            query_pos=query_pos,
            key_pos=cells.position,
            key_padding_mask=cells.padding,
        )


class DETR(nn.Module):
    """logits_i = class_embed(h_i), boxes_i = sigmoid(bbox_embed(h_i)), h_i = decoder_i(encoder(input_proj(backbone)))

    Parameters (C = embed_dim):
        backbone: see `ResNet`.
        input_proj: 1 x 1 convolution from the backbone's channels to C.
        query_embed.weight: (num_queries, C), a position for every query.
        transformer: see `DETRTransformer`.
        class_embed: linear, C -> num_classes + 1, the last logit for "no object".
        bbox_embed: `MLP` of three layers, C -> C -> C -> 4.

    Args:
        config: the sizes.
        backbone: another backbone than the configured ResNet, such as an `AutoBackbone`; its last map is used.
    """

    def __init__(self, config: DETRConfig, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = ResNet(config.backbone) if backbone is None else backbone
        self.input_proj = nn.Conv2d(self.backbone.channels[-1], config.embed_dim, kernel_size=1)
        self.query_embed = nn.Embedding(config.num_queries, config.embed_dim)
        self.transformer = DETRTransformer(config)
        self.class_embed = nn.Linear(config.embed_dim, config.num_classes + 1)
        self.bbox_embed = MLP(MLPConfig(config.embed_dim, config.embed_dim, 4, num_layers=3))

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], mask: Bool[Tensor, "batch height width"]
    ) -> dict[str, Float[Tensor, "layer batch query _"]]:
        """The predictions of every decoder layer, the final ones last.

        Args:
            images: normalised, and zero where padded, on the right and at the bottom.
            mask: True = padding.

        Returns:
            pred_logits: (layer, batch, query, num_classes + 1).
            pred_boxes: (layer, batch, query, 4), (x, y, w, h) with the centre first, relative to the image.

        Raises:
            ValueError: shapes disagree; the message quotes them.
            TypeError: mask is not boolean.
        """
        check_images(images, mask)
        features = self.input_proj(self.backbone(images)[-1])
        cells = image_tokens(features, mask, temperature=POSITION_TEMPERATURE)
        hidden = self.transformer(cells, self.query_embed.weight)
        return {"pred_logits": self.class_embed(hidden), "pred_boxes": self.bbox_embed(hidden).sigmoid()}


def build(config: DETRConfig, state_dict: Mapping[str, Tensor] | None = None) -> DETR:
    """The model with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(DETR(config), state_dict)
