"""Transformer layers around deformable attention: one of an encoder over feature maps, one of a decoder with queries.

Source: Deformable DETR, arXiv:2010.04159, section 4.1; read with fundamentalvision/Deformable-DETR,
models/deformable_transformer.py, and detrex, layers/transformer.py (BaseTransformerLayer). Clauses: spec chapter 12.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import DeformableCore, MultiScaleDeformableAttention
from detr_reference.feed_forward.feed_forward import FeedForward
from detr_reference.transformer.config import DeformableLayerConfig


class DeformableEncoderLayer(nn.Module):
    """x <- norm_0(x + deform(x + pos, value = x)),  x <- norm_1(x + ffn(x))

    Every cell of every map is a query.

    Parameters:
        attentions.0: MultiScaleDeformableAttention.
        ffns.0: FeedForward.
        norms.{0,1}: nn.LayerNorm, after the attention and after the feed-forward network.

    Args:
        config: the sizes.
        core: the sampling function, see `MultiScaleDeformableAttention`.
    """

    def __init__(self, config: DeformableLayerConfig, core: DeformableCore = ms_deform_attn) -> None:
        super().__init__()
        self.config = config
        self.attentions = nn.ModuleList([MultiScaleDeformableAttention(config.deformable_attention, core)])
        self.ffns = nn.ModuleList([FeedForward(config.feed_forward)])
        self.norms = nn.ModuleList(nn.LayerNorm(config.embed_dim) for _ in range(2))

    def forward(
        self,
        query: Float[Tensor, "batch cell embed"],
        query_pos: Float[Tensor, "batch cell embed"] | None = None,
        key_padding_mask: Bool[Tensor, "batch cell"] | None = None,
        *,
        reference_points: Float[Tensor, "batch cell level coordinate"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
    ) -> Float[Tensor, "batch cell embed"]:
        """The cells after the layer.

        Args:
            query: the L flattened maps.
            query_pos: positions of the cells, added to the query alone; the value is without them.
            key_padding_mask: True marks a cell of padding, which nothing is read from.
            reference_points: where each cell looks from, in units of each (padded) map's width and height.
            spatial_shapes: (H, W) of each map.
            level_start_index: the cell at which each map begins.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
            TypeError: key_padding_mask is not boolean.
        """
        attended = self.attentions[0](
            query,
            query_pos=query_pos,
            key_padding_mask=key_padding_mask,
            reference_points=reference_points,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
        )
        return self.norms[1](self.ffns[0](self.norms[0](attended)))


class DeformableDecoderLayer(nn.Module):
    """x <- norm_0(x + attn(x + pos, key = x + pos, value = x)),  x <- norm_1(x + deform(x + pos, value)),
    x <- norm_2(x + ffn(x))

    Parameters:
        attentions.0: MultiheadAttention, among the queries.
        attentions.1: MultiScaleDeformableAttention, from the queries to the value.
        ffns.0: FeedForward.
        norms.{0,1,2}: nn.LayerNorm, after self-attention, after deformable attention, after the feed-forward network.

    Args:
        config: the sizes.
        core: the sampling function, see `MultiScaleDeformableAttention`.
    """

    def __init__(self, config: DeformableLayerConfig, core: DeformableCore = ms_deform_attn) -> None:
        super().__init__()
        self.config = config
        self.attentions = nn.ModuleList(
            [
                MultiheadAttention(config.self_attention),
                MultiScaleDeformableAttention(config.deformable_attention, core),
            ]
        )
        self.ffns = nn.ModuleList([FeedForward(config.feed_forward)])
        self.norms = nn.ModuleList(nn.LayerNorm(config.embed_dim) for _ in range(3))

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        value: Float[Tensor, "batch cell embed"],
        query_pos: Float[Tensor, "batch query embed"] | None = None,
        attn_mask: Bool[Tensor, "*slice query query"] | Float[Tensor, "*slice query query"] | None = None,
        key_padding_mask: Bool[Tensor, "batch cell"] | None = None,
        *,
        reference_points: Float[Tensor, "batch query level coordinate"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
    ) -> Float[Tensor, "batch query embed"]:
        """The queries after the layer.

        Args:
            query: what each query holds.
            value: the L flattened maps, the memory of the encoder.
            query_pos: positions of the queries, added to query and key of self-attention and to the query of
                deformable attention; never to a value, nor to the stream.
            attn_mask: (Q, Q) or (B * M, Q, Q), in self-attention; boolean True forbids.
            key_padding_mask: True marks a cell of padding, which nothing is read from.
            reference_points: where each query looks from, in units of each (padded) map's width and height.
            spatial_shapes: (H, W) of each map.
            level_start_index: the cell at which each map begins.

        Raises:
            ValueError: shapes disagree; the message names the argument and quotes the shapes.
            TypeError: a mask is of a type that it cannot have.
        """
        among_queries, to_value = self.attentions
        query = self.norms[0](among_queries(query, query_pos=query_pos, key_pos=query_pos, attn_mask=attn_mask))
        attended = to_value(
            query,
            value,
            query_pos=query_pos,
            key_padding_mask=key_padding_mask,
            reference_points=reference_points,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
        )
        return self.norms[2](self.ffns[0](self.norms[1](attended)))
