"""DETR: a set of boxes and classes from one feature map, by a transformer and without anchors or suppression.

Source: DETR, arXiv:2005.12872; read with facebookresearch/detr, models/detr.py, models/transformer.py and
models/backbone.py, and detrex, projects/detr/modeling. Chapter 17.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.detectors.config import DETRConfig
from detr_reference.every_block.parameters import with_parameters, xavier_matrices
from detr_reference.features.backbone import Backbone
from detr_reference.features.image_tokens import ImageTokens, check_images, image_tokens
from detr_reference.features.resnet import ResNet
from detr_reference.feed_forward.config import MLPConfig
from detr_reference.feed_forward.mlp import MLP
from detr_reference.transformer.layer import DecoderLayer, EncoderLayer
from detr_reference.transformer.stack import TransformerStack

POSITION_TEMPERATURE = 10000.0


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
