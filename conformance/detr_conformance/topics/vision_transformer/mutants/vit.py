"""The Vision Transformer by hand, one overridable step after another, around the hand-written self-attention.

It shares only parameter names and configuration with the reference. The unchanged module is a twin; the mutants and the
other twins override one step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.attention.mutants.self_attention import HandWrittenSelfAttention
from detr_reference.attention.config import SelfAttentionConfig
from detr_reference.vision_transformer.config import VisionTransformerConfig

VIT = "vit"

Image = Float[Tensor, "batch channel height width"]
Tokens = Float[Tensor, "batch token embed"]


class Patches(nn.Module):
    """The parameters of the patch embedding."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, config.patch_size, config.patch_size)


class Perceptron(nn.Module):
    """The parameters of an MLP."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(embed, hidden), nn.Linear(hidden, embed)


class Block(nn.Module):
    """The parameters of a block; what is done with them stands in the model."""

    def __init__(self, config: VisionTransformerConfig, attention: HandWrittenSelfAttention, hidden: int) -> None:
        super().__init__()
        embed = config.embed_dim
        self.norm1, self.norm2 = nn.LayerNorm(embed), nn.LayerNorm(embed)
        self.attn = attention
        self.mlp = Perceptron(embed, hidden)
        if config.layer_scale:
            scale = torch.full((embed,), 1e-5)
            self.ls1 = nn.ParameterDict({"gamma": scale.clone()})
            self.ls2 = nn.ParameterDict({"gamma": scale.clone()})


@twin("vit-by-hand", operation=VIT, origin="patches cut by unfold and multiplied as a matrix")
class HandWrittenVit(nn.Module):
    """Cuts patches by unfold, projects them by a matrix product, and adds positions piece by piece."""

    def __init__(self, config: VisionTransformerConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        embed, patch = config.embed_dim, config.patch_size
        attention = SelfAttentionConfig(embed, config.num_heads, config.qkv_bias)
        self.grid = (config.image_size[0] // patch, config.image_size[1] // patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], embed))
        self.patch_embed = Patches(config)
        self.stack = [Block(config, self.attention(attention), self.hidden()) for _ in range(config.depth)]
        self.blocks = nn.ModuleList(self.stack)
        self.norm = nn.LayerNorm(embed)
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def attention(self, config: SelfAttentionConfig) -> HandWrittenSelfAttention:
        return HandWrittenSelfAttention(config)

    def hidden(self) -> int:
        return int(self.config.embed_dim * self.config.mlp_ratio)

    # The call, step by step.

    def forward(self, image: Image) -> Tensor:
        self.check(image)
        x = self.embedded(self.patches(self.pixels(image)))
        for index, block in enumerate(self.stack):
            x = self.through(x, block, index)
        return self.pooled(x)

    def check(self, image: Image) -> None:
        expected = (self.config.in_channels, *self.config.image_size)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(f"image must be (batch, {expected}), got {tuple(image.shape)}")

    def pixels(self, image: Image) -> Image:
        return image

    def patches(self, image: Image) -> Tokens:
        projection = self.patch_embed.proj
        columns = F.unfold(image, self.config.patch_size, stride=self.config.patch_size).transpose(1, 2)
        return F.linear(columns, projection.weight.flatten(1), projection.bias)

    def embedded(self, patches: Tokens) -> Tokens:
        first = (self.cls_token + self.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
        return torch.cat((first, patches + self.pos_embed[:, 1:]), 1)

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = x + self.scaled(self.attended(self.normed(x, block.norm1), block), block, "ls1")
        return x + self.scaled(self.perceived(self.normed(x, block.norm2), block), block, "ls2")

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, self.config.layer_norm_eps)

    def attended(self, x: Tokens, block: Block) -> Tokens:
        return block.attn(x)

    def perceived(self, x: Tokens, block: Block) -> Tokens:
        return block.mlp.fc2(self.bent(block.mlp.fc1(x)))

    def bent(self, hidden: Tokens) -> Tokens:
        return F.gelu(hidden)

    def scaled(self, added: Tokens, block: Block, name: str) -> Tokens:
        return added * getattr(block, name)["gamma"] if self.config.layer_scale else added

    def pooled(self, x: Tokens) -> Tensor:
        x = self.normed(x, self.norm)
        if self.config.pool == "none":
            return x
        return x[:, 0] if self.config.pool == "cls" else self.mean(x)

    def mean(self, x: Tokens) -> Float[Tensor, "batch embed"]:
        return x[:, 1:].mean(1)
