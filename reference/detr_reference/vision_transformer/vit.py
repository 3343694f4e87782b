"""The Vision Transformer: patches, a class token, learned positions, pre-norm blocks, a final norm.

Source: ViT, arXiv:2010.11929, section 3.1; read with timm, models/vision_transformer.py, whose parameter names are
kept. State dicts of others: `names`. Clauses: spec chapter 09.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.every_block.parameters import with_parameters
from detr_reference.vision_transformer.block import VisionTransformerBlock
from detr_reference.vision_transformer.config import VisionTransformerConfig
from detr_reference.vision_transformer.patch_embedding import PatchEmbedding


class VisionTransformer(nn.Module):
    """pool(norm(blocks(concat(cls_token, patches(image)) + pos_embed)))

    Parameters (C = embed_dim, N patches):
        cls_token: (1, 1, C), the token in front of the patches.
        pos_embed: (1, 1 + N, C), added to the class token and the patches.
        patch_embed: see `PatchEmbedding`.
        blocks.0 to blocks.{depth - 1}: see `VisionTransformerBlock`.
        norm: the final LayerNorm, on every token.

    Args:
        config: the sizes.
    """

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config.patch_size, config.in_channels, config.embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.num_patches, config.embed_dim))
        self.blocks = nn.Sequential(
            *(
                VisionTransformerBlock(config.attention(), config.mlp_dim, config.layer_norm_eps, config.layer_scale)
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.02, cut off at 2, for positions and linear weights; linear biases zero; class token
        normal with deviation 1e-6. Patch embedding and norms keep PyTorch's initialisation. (As in timm.)"""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch embed"] | Float[Tensor, "batch token embed"]:
        """(batch, embed) for the pools "cls" and "mean"; for "none" (batch, 1 + N, embed), the class token first.

        Raises:
            ValueError: the image has not the configured channels, height and width.
        """
        self._check_image(image)
        patches = self.patch_embed(image)
        tokens = torch.cat((self.cls_token.expand(len(patches), -1, -1).to(patches.dtype), patches), dim=1)
        tokens = self.norm(self.blocks(tokens + self.pos_embed))
        if self.config.pool == "none":
            return tokens
        return tokens[:, 0] if self.config.pool == "cls" else tokens[:, 1:].mean(1)

    def _check_image(self, image: Tensor) -> None:
        expected = (self.config.in_channels, *self.config.image_size)
        if image.ndim != 4 or image.shape[1:] != expected:
            raise ValueError(
                f"image must be (batch, channel, height, width) = (batch, {', '.join(map(str, expected))}), "
                f"got {tuple(image.shape)}; resize the image, or build the model for its size"
            )


def build(config: VisionTransformerConfig, state_dict: Mapping[str, Tensor] | None = None) -> VisionTransformer:
    """The model with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(VisionTransformer(config), state_dict)
