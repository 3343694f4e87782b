"""Sizes of the Vision Transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_reference.attention.config import SelfAttentionConfig
from detr_reference.every_block.config_checks import check_sizes

POOLS = ("cls", "mean", "none")


@dataclass(frozen=True)
class VisionTransformerConfig:
    """Sizes of the Vision Transformer.

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
