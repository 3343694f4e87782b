"""DAB-DETR: DETR whose queries are boxes, corrected by every decoder layer.

Source: DAB-DETR, arXiv:2201.12329; read with IDEA-Research/DAB-DETR, models/DAB_DETR/DABDETR.py, and detrex,
projects/dab_detr/modeling/dab_detr.py. Chapter 17.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.detectors.config import DABDETRConfig
from detr_reference.detectors.detection_heads import box_head, class_head
from detr_reference.every_block.parameters import with_parameters, xavier_matrices
from detr_reference.features.backbone import Backbone
from detr_reference.features.image_tokens import ImageTokens, check_images, image_tokens
from detr_reference.features.resnet import ResNet
from detr_reference.feed_forward.mlp import MLP
from detr_reference.queries.box_refinement import inverse_sigmoid, refine_boxes
from detr_reference.queries.dab_decoder import DABDecoder, DABEncoder

POSITION_TEMPERATURE = 20.0


class DABTransformer(nn.Module):
    """Parameters: encoder, see `DABEncoder`; decoder, see `DABDecoder`."""

    def __init__(self, config: DABDETRConfig) -> None:
        super().__init__()
        sizes = (config.embed_dim, config.num_heads, config.feedforward_dim)
        self.encoder = DABEncoder(*sizes, config.num_encoder_layers)
        self.decoder = DABDecoder(*sizes, config.num_decoder_layers)
        xavier_matrices(self)

    def forward(
        self,
        cells: ImageTokens,
        content: Float[Tensor, "batch query embed"],
        references: Float[Tensor, "batch query 4"],
        bbox_embed: MLP,
        attn_mask: Bool[Tensor, "query query"] | None = None,
    ) -> tuple[Float[Tensor, "layer batch query embed"], Float[Tensor, "layer batch query 4"]]:
        """See `DABDecoder.forward`."""
        return self.decoder(content, references, self.encoder(cells), cells, bbox_embed, attn_mask)


class DABDETR(nn.Module):
    """logits_i = class_embed(h_i), boxes_i = sigmoid(bbox_embed(h_i) + logit(box_i)), box_i as layer i was given it

    Parameters (C = embed_dim):
        backbone: see `ResNet`.
        input_proj: 1 x 1 convolution from the backbone's channels to C.
        anchor_box_embed.weight: (num_queries, 4), logits of each query's box (x, y, w, h).
        transformer: see `DABTransformer`.
        class_embed: linear, C -> num_classes.
        bbox_embed: `MLP` of three layers, C -> C -> C -> 4; one for all layers, corrections and predictions. At the
            beginning it corrects nothing.

    Args:
        config: the sizes.
        backbone: another backbone than the configured ResNet, see `DETR`.
    """

    def __init__(self, config: DABDETRConfig, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = ResNet(config.backbone) if backbone is None else backbone
        self.input_proj = nn.Conv2d(self.backbone.channels[-1], config.embed_dim, kernel_size=1)
        self.anchor_box_embed = nn.Embedding(config.num_queries, 4)
        self.transformer = DABTransformer(config)
        self.class_embed = class_head(config.embed_dim, config.num_classes)
        self.bbox_embed = box_head(config.embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Centres of the boxes uniform on the image, logits of their sizes N(0, 1)."""
        with torch.no_grad():
            self.anchor_box_embed.weight[:, :2] = inverse_sigmoid(torch.rand(self.config.num_queries, 2))
            self.anchor_box_embed.weight[:, 2:].normal_()

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], mask: Bool[Tensor, "batch height width"]
    ) -> dict[str, Float[Tensor, "layer batch query _"]]:
        """The predictions of every decoder layer, the final ones last.

        Args:
            images: normalised, and zero where padded, on the right and at the bottom.
            mask: True = padding.

        Returns:
            pred_logits: (layer, batch, query, num_classes).
            pred_boxes: (layer, batch, query, 4), (x, y, w, h) with the centre first, relative to the image.

        Raises:
            ValueError: shapes disagree; the message quotes them.
            TypeError: mask is not boolean.
        """
        cells = self.cells(images, mask)
        references = self.anchors(batch=len(images))
        content = cells.features.new_zeros(*references.shape[:2], self.config.embed_dim)
        return self.predictions(*self.transformer(cells, content, references, self.bbox_embed))

    def cells(
        self, images: Float[Tensor, "batch 3 height width"], mask: Bool[Tensor, "batch height width"]
    ) -> ImageTokens:
        """What the transformer is given of the images."""
        check_images(images, mask)
        return image_tokens(self.input_proj(self.backbone(images)[-1]), mask, temperature=POSITION_TEMPERATURE)

    def anchors(self, batch: int) -> Float[Tensor, "batch query 4"]:
        """The learned boxes, the same for every image, in float32 or wider."""
        logits = self.anchor_box_embed.weight
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid().expand(batch, -1, -1)

    def predictions(
        self, hidden: Float[Tensor, "layer batch query embed"], references: Float[Tensor, "layer batch query 4"]
    ) -> dict[str, Float[Tensor, "layer batch query _"]]:
        """Classes, and references corrected, of every layer."""
        return {
            "pred_logits": self.class_embed(hidden),
            "pred_boxes": refine_boxes(self.bbox_embed(hidden), references).to(hidden.dtype),
        }


def build(config: DABDETRConfig, state_dict: Mapping[str, Tensor] | None = None) -> DABDETR:
    """The model with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(DABDETR(config), state_dict)
