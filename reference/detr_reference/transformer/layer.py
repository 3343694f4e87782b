"""One transformer layer: attentions, norms and feed-forward networks in the order that the configuration gives.

Source: Attention Is All You Need, arXiv:1706.03762, section 3.1 (post-norm); On Layer Normalization in the Transformer
Architecture, arXiv:2002.04745, table 1 (pre-norm); DETR, arXiv:2005.12872, appendix A.3; read with detrex,
layers/transformer.py (BaseTransformerLayer), and facebookresearch/detr, models/transformer.py. Clauses: chapter 07.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.every_block.parameters import with_parameters
from detr_reference.feed_forward.feed_forward import FeedForward
from detr_reference.transformer.config import ATTENTIONS, TransformerLayerConfig

Tokens = Float[Tensor, "batch query embed"]


class TransformerLayer(nn.Module):
    """x <- norm(x), x <- x + sublayer(x) (post-norm), or x <- x + sublayer(norm(x)) (pre-norm), in the given order

    Two tensors run through the layer: the stream, to which sublayers add, and what the next sublayer sees of it.
    A norm of a post-norm layer replaces both; one of a pre-norm layer changes only what is seen, and only until the
    next sublayer has been added. The sublayers of a kind are numbered as they come, each with its own parameters.

    Parameters:
        attentions.{i}: MultiheadAttention, self- and cross-attentions counted together.
        ffns.{i}: FeedForward.
        norms.{i}: nn.LayerNorm over the channels.
    """

    def __init__(self, config: TransformerLayerConfig) -> None:
        super().__init__()
        self.config = config
        order = config.operation_order
        self.attentions = nn.ModuleList(MultiheadAttention(config.attention) for name in order if name in ATTENTIONS)
        self.ffns = nn.ModuleList(FeedForward(config.feed_forward) for name in order if name == "ffn")
        self.norms = nn.ModuleList(
            nn.LayerNorm(config.embed_dim, config.layer_norm_eps) for name in order if name == "norm"
        )

    def _through_the_order(self, query: Tokens, context: Mapping[str, Mapping[str, Tensor | None]]) -> Tokens:
        """The stream after the last operation; context holds what each kind of attention is given."""
        attentions, ffns, norms = iter(self.attentions), iter(self.ffns), iter(self.norms)
        stream = seen = query
        for name in self.config.operation_order:
            if name == "norm":
                seen = next(norms)(seen)
                stream = stream if self.config.pre_norm else seen
            elif name == "ffn":
                stream = seen = next(ffns)(seen, identity=stream)
            else:
                stream = seen = next(attentions)(seen, identity=stream, **context[name])
        return stream


class EncoderLayer(TransformerLayer):
    """A transformer layer in which tokens attend to each other alone: its order has no "cross_attn"."""

    def __init__(self, config: TransformerLayerConfig) -> None:
        if "cross_attn" in config.operation_order:
            raise ValueError(
                f"an encoder layer has no key for the cross_attn in operation_order {config.operation_order}; "
                "build a decoder layer"
            )
        super().__init__(config)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        query_pos: Float[Tensor, "batch query embed"] | None = None,
        attn_mask: Bool[Tensor, "*slice query query"] | Float[Tensor, "*slice query query"] | None = None,
        query_key_padding_mask: Bool[Tensor, "batch query"] | None = None,
    ) -> Float[Tensor, "batch query embed"]:
        """The stream after the last operation.

        Args:
            query: the tokens.
            query_pos: added to query and key of every self-attention, and to nothing else.
            attn_mask: (Q, Q) or (B * M, Q, Q), in every self-attention; boolean True forbids.
            query_key_padding_mask: True forbids to attend to a token.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
            TypeError: a mask is of a type that it cannot have.
        """
        _check_tokens(self.config, query, query_pos, "query")
        _check_padding("query_key_padding_mask", query_key_padding_mask, query)
        to_each_other = {
            "query_pos": query_pos,
            "key_pos": query_pos,
            "attn_mask": attn_mask,
            "key_padding_mask": query_key_padding_mask,
        }
        return self._through_the_order(query, {"self_attn": to_each_other})


class DecoderLayer(TransformerLayer):
    """A transformer layer whose queries also attend to keys from elsewhere: its order has a "cross_attn"."""

    def __init__(self, config: TransformerLayerConfig) -> None:
        if "cross_attn" not in config.operation_order:
            raise ValueError(
                f"operation_order {config.operation_order} has no cross_attn, so that the key would be ignored; "
                "build an encoder layer"
            )
        super().__init__(config)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        key: Float[Tensor, "batch key embed"],
        query_pos: Float[Tensor, "batch query embed"] | None = None,
        key_pos: Float[Tensor, "batch key embed"] | None = None,
        attn_mask: Bool[Tensor, "*slice query query"] | Float[Tensor, "*slice query query"] | None = None,
        cross_attn_mask: Bool[Tensor, "*slice query key"] | Float[Tensor, "*slice query key"] | None = None,
        query_key_padding_mask: Bool[Tensor, "batch query"] | None = None,
        key_padding_mask: Bool[Tensor, "batch key"] | None = None,
    ) -> Float[Tensor, "batch query embed"]:
        """The stream after the last operation.

        Args:
            query: the tokens of the stream.
            key: what cross-attentions attend to, never normalised; its values are the key without key_pos.
            query_pos: added to query and key of every self-attention and to the query of every cross-attention.
            key_pos: added to the key of every cross-attention. By default, as in `MultiheadAttention`, query_pos
                if that has the shape of key, else nothing.
            attn_mask: (Q, Q) or (B * M, Q, Q), in every self-attention; boolean True forbids.
            cross_attn_mask: (Q, K) or (B * M, Q, K), in every cross-attention.
            query_key_padding_mask: True forbids to attend to a token of the stream.
            key_padding_mask: True forbids to attend to a key.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
            TypeError: a mask is of a type that it cannot have.
        """
        _check_tokens(self.config, query, query_pos, "query")
        _check_tokens(self.config, key, key_pos, "key")
        if key.shape[0] != query.shape[0]:
            raise ValueError(f"key {tuple(key.shape)} and query {tuple(query.shape)} differ in batch")
        _check_padding("query_key_padding_mask", query_key_padding_mask, query)
        _check_padding("key_padding_mask", key_padding_mask, key)
        _check_cross_mask(self.config, cross_attn_mask, query, key)
        to_each_other = {
            "query_pos": query_pos,
            "key_pos": query_pos,
            "attn_mask": attn_mask,
            "key_padding_mask": query_key_padding_mask,
        }
        to_the_key = {
            "key": key,
            "query_pos": query_pos,
            "key_pos": key_pos,
            "attn_mask": cross_attn_mask,
            "key_padding_mask": key_padding_mask,
        }
        return self._through_the_order(query, {"self_attn": to_each_other, "cross_attn": to_the_key})


def _check_tokens(config: TransformerLayerConfig, tokens: Tensor, position: Tensor | None, name: str) -> None:
    if tokens.ndim != 3 or tokens.shape[-1] != config.embed_dim:
        raise ValueError(f"{name} must be (batch, length, {config.embed_dim}), got {tuple(tokens.shape)}")
    if position is not None and position.shape != tokens.shape:
        raise ValueError(f"{name}_pos {tuple(position.shape)} must have the shape of {name}, {tuple(tokens.shape)}")


def _check_padding(name: str, mask: Tensor | None, tokens: Tensor) -> None:
    if mask is None:
        return
    if mask.shape != tokens.shape[:2]:
        raise ValueError(f"{name} must be (batch, length) = {tuple(tokens.shape[:2])}, got {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be bool (True is padding), got {mask.dtype}")


def _check_cross_mask(config: TransformerLayerConfig, mask: Tensor | None, query: Tensor, key: Tensor) -> None:
    if mask is None:
        return
    (batch, queries, _), keys = query.shape, key.shape[1]
    shapes = {(queries, keys), (batch * config.num_heads, queries, keys)}
    if mask.shape not in shapes:
        raise ValueError(
            f"cross_attn_mask must be (query, key) = {(queries, keys)} or (batch * heads, query, key) = "
            f"{(batch * config.num_heads, queries, keys)}, got {tuple(mask.shape)}"
        )


def build_encoder_layer(config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None = None) -> EncoderLayer:
    """The layer with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        ValueError: the order has a cross-attention.
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(EncoderLayer(config), state_dict)


def build_decoder_layer(config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None = None) -> DecoderLayer:
    """The layer with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        ValueError: the order has no cross-attention.
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(DecoderLayer(config), state_dict)
