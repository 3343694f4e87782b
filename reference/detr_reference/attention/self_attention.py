"""Self-attention as Vision Transformers write it: one projection makes queries, keys and values.

Source: Attention Is All You Need, arXiv:1706.03762, section 3.2; ViT, arXiv:2010.11929, appendix A; read with timm,
layers/attention.py, whose parameter names are kept. Clauses: spec chapter 05.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.attention.config import SelfAttentionConfig
from detr_reference.every_block.parameters import with_parameters

Heads = Float[Tensor, "batch head token channel"]


def attend(
    query: Float[Tensor, "batch head query channel"],
    key: Float[Tensor, "batch head key channel"],
    value: Float[Tensor, "batch head key channel"],
    dropout: nn.Dropout,
) -> Float[Tensor, "batch query head*channel"]:
    """dropout(softmax(q k^T / sqrt(D))) v for each head, the softmax over the keys; the heads side by side.

    The query is scaled before the product, which half precision could not hold otherwise.
    """
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    weights = logits.softmax(-1).to(value.dtype)  # autocast on CUDA computes a softmax in float32
    return (dropout(weights) @ value).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """out = proj_drop(proj(heads)), head_h = attn_drop(softmax(q_h k_h^T / sqrt(D))) v_h, (q, k, v) = qkv(x)

    Parameters (C = embed_dim, M heads of D = C / M channels):
        qkv: Linear C -> 3C, read as (query | key | value, head, channel); with a bias if config.qkv_bias.
        proj: Linear C -> C with bias.

    Linear layers are initialised as PyTorch does it.

    Args:
        config: the sizes.
    """

    def __init__(self, config: SelfAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=config.qkv_bias)
        self.attn_drop = nn.Dropout(config.attn_drop)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.proj_drop = nn.Dropout(config.proj_drop)

    def forward(self, x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token embed"]:
        """Every token attends to every token, itself included; nothing is added to the result.

        Args:
            x: the tokens.

        Raises:
            ValueError: x is not (batch, token, embed_dim).
        """
        query, key, value = self._project(x)
        return self.proj_drop(self.proj(attend(query, key, value, self.attn_drop)))

    def _project(self, x: Float[Tensor, "batch token embed"]) -> tuple[Heads, Heads, Heads]:
        if x.ndim != 3 or x.shape[-1] != self.config.embed_dim:
            raise ValueError(f"x must be (batch, token, {self.config.embed_dim}), got {tuple(x.shape)}")
        parts = self.qkv(x).unflatten(-1, (3, self.config.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (batch, head, token, channel) each
        return query, key, value


def build(config: SelfAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> SelfAttention:
    """The module with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(SelfAttention(config), state_dict)
