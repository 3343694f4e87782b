"""Cross-attention in the form of `self_attention`: the three thirds of its projection are three linear layers here.

Source: Attention Is All You Need, arXiv:1706.03762, section 3.2.3. Clauses: spec chapter 05.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.attention.config import CrossAttentionConfig
from detr_reference.attention.self_attention import attend
from detr_reference.every_block.parameters import with_parameters


class CrossAttention(nn.Module):
    """out = proj_drop(proj(heads)), head_h = attn_drop(softmax(q_h k_h^T / sqrt(D))) v_h

    with q = q(query), k = k(key), v = v(value). Called with one tensor three times it is the self-attention whose
    qkv is (q, k, v) laid end to end; `proj` is the same in both.

    Parameters (C = embed_dim, M heads of D = C / M channels, head h in channels h*D to (h + 1)*D):
        q, k, v: Linear C -> C; with a bias if config.qkv_bias.
        proj: Linear C -> C with bias.

    Linear layers are initialised as PyTorch does it.

    Args:
        config: the sizes.
    """

    def __init__(self, config: CrossAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.q, self.k, self.v = (nn.Linear(config.embed_dim, config.embed_dim, bias=config.qkv_bias) for _ in range(3))
        self.attn_drop = nn.Dropout(config.attn_drop)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.proj_drop = nn.Dropout(config.proj_drop)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        key: Float[Tensor, "batch key embed"],
        value: Float[Tensor, "batch key embed"],
    ) -> Float[Tensor, "batch query embed"]:
        """Every query attends to every key and receives the values that belong to them.

        Args:
            query: what asks.
            key: what is asked.
            value: what is answered; one for each key.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
        """
        self._check_arguments(query, key, value)
        q, k, v = self._split(self.q(query)), self._split(self.k(key)), self._split(self.v(value))
        return self.proj_drop(self.proj(attend(q, k, v, self.attn_drop)))

    def _split(self, projected: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch head token channel"]:
        return projected.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)

    def _check_arguments(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        embed = self.config.embed_dim
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            if tensor.ndim != 3 or tensor.shape[-1] != embed:
                raise ValueError(f"{name} must be (batch, length, {embed}), got {tuple(tensor.shape)}")
        if key.shape[0] != query.shape[0]:
            raise ValueError(f"key {tuple(key.shape)} and query {tuple(query.shape)} differ in batch")
        if value.shape != key.shape:
            raise ValueError(f"value {tuple(value.shape)} must have the shape of key, {tuple(key.shape)}")


def build(config: CrossAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> CrossAttention:
    """The module with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(CrossAttention(config), state_dict)
