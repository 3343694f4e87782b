"""The Vision Transformer: patches, a class token, learned positions, pre-norm blocks, a final norm.

Source: ViT, arXiv:2010.11929, section 3.1; read with timm, models/vision_transformer.py, whose parameter names are
kept. State dicts of others: `names`. Clauses: spec chapter 09.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.attention.self_attention import SelfAttentionConfig
from detr_reference.every_block.config_checks import check_sizes
from detr_reference.every_block.parameters import with_parameters
from detr_reference.vision_transformer.block import VisionTransformerBlock
from detr_reference.vision_transformer.patch_embedding import PatchEmbedding

POOLS = ("cls", "mean", "none")


@dataclass(frozen=True)
class VisionTransformerConfig:
    """Sizes of the model.

    Args:
        image_size: (H, W) of the images, in pixels.
        patch_size: side of a patch, in pixels; divides both sides of the image.
        in_channels: channels of the image.
        embed_dim: channels of a token.
        depth: number of blocks.
        num_heads: heads of each attention.
        mlp_ratio: the MLP has int(embed_dim * mlp_ratio) channels inside.
        qkv_bias: whether the projections to queries, keys and values have a bias.
        layer_norm_eps: added to the variance in every norm. timm's is 1e-6, transformers' 1e-12.
        layer_scale: whether the blocks scale what they add, channel by channel.
        pool: "cls": the class token; "mean": the mean of the patches; "none": all tokens.

    Raises:
        ValueError: a size is below 1, a side is no multiple of the patch, heads do not divide embed_dim, or the pool is
            unknown.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    in_channels: int = 3
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    layer_scale: bool = False
    pool: Literal["cls", "mean", "none"] = "cls"

    def __post_init__(self) -> None:
        check_sizes(self, "patch_size", "in_channels", "depth")
        if len(self.image_size) != 2 or min(self.image_size) < 1 or any(s % self.patch_size for s in self.image_size):
            raise ValueError(
                f"image_size must be (height, width), multiples of patch_size {self.patch_size}, got {self.image_size}"
            )
        if self.mlp_dim < 1:
            raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves no channel of embed_dim {self.embed_dim}")
        if self.layer_norm_eps < 0:
            raise ValueError(f"layer_norm_eps must not be negative, got {self.layer_norm_eps}")
        if self.pool not in POOLS:
            raise ValueError(f"pool must be one of {POOLS}, got {self.pool!r}")
        self.attention()  # checks heads and channels

    @property
    def num_patches(self) -> int:
        return (self.image_size[0] // self.patch_size) * (self.image_size[1] // self.patch_size)

    @property
    def mlp_dim(self) -> int:
        return int(self.embed_dim * self.mlp_ratio)

    def attention(self) -> SelfAttentionConfig:
        """The configuration of the blocks' self-attention; there is no dropout."""
        return SelfAttentionConfig(self.embed_dim, self.num_heads, self.qkv_bias)


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
