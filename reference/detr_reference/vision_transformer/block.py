"""The pre-norm block of the Vision Transformer.

Source: ViT, arXiv:2010.11929, equations 2 and 3; layer scale: CaiT, arXiv:2103.17239, section 2; read with timm,
models/vision_transformer.py. Clauses: spec chapter 09.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.attention.config import SelfAttentionConfig
from detr_reference.attention.self_attention import SelfAttention

INITIAL_SCALE = 1e-5  # of layer scale; timm's default


class VisionTransformerMLP(nn.Module):
    """fc2(gelu(fc1(x))), with the exact GELU, x * Phi(x), not its tanh approximation."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token embed"]:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """x * gamma: one learned factor a channel."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), INITIAL_SCALE))

    def forward(self, x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token embed"]:
        return x * self.gamma


class VisionTransformerBlock(nn.Module):
    """x = x + ls1(attn(norm1(x))), then x = x + ls2(mlp(norm2(x)))

    The stream x itself is never normalised: each norm is seen by its sublayer alone.

    Args:
        attention: the configuration of the self-attention, whose embed_dim is that of the stream.
        hidden_dim: channels between the two layers of the MLP.
        layer_norm_eps: added to the variance in both norms.
        layer_scale: whether the sublayers' outputs are scaled channel by channel.
    """

    def __init__(
        self, attention: SelfAttentionConfig, hidden_dim: int, layer_norm_eps: float, layer_scale: bool
    ) -> None:
        super().__init__()
        embed_dim = attention.embed_dim
        self.norm1 = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self.attn = SelfAttention(attention)
        self.ls1 = LayerScale(embed_dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self.mlp = VisionTransformerMLP(embed_dim, hidden_dim)
        self.ls2 = LayerScale(embed_dim) if layer_scale else nn.Identity()

    def forward(self, x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token embed"]:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))
