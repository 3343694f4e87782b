"""DAB-DETR's transformer: queries are boxes that say where to look and how far around, and every layer corrects them.

Source: DAB-DETR, arXiv:2201.12329, section 4; read with IDEA-Research/DAB-DETR, models/DAB_DETR/transformer.py, and
detrex, projects/dab_detr/modeling/dab_transformer.py, whose parameter names are kept. Chapter 17.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detr_reference.attention.conditional_attention import ConditionalCrossAttention, ConditionalSelfAttention
from detr_reference.features.image_tokens import ImageTokens
from detr_reference.feed_forward.config import FeedForwardConfig, MLPConfig
from detr_reference.feed_forward.feed_forward import FeedForward
from detr_reference.feed_forward.mlp import MLP
from detr_reference.positions.box_position_embedding import box_position_embedding
from detr_reference.queries.box_refinement import refine_boxes
from detr_reference.transformer.config import TransformerLayerConfig
from detr_reference.transformer.layer import EncoderLayer


class DABEncoder(nn.Module):
    """x_{i+1} = layer_i(x_i, positions scaled, channel by channel, by query_scale(x_i))

    Parameters:
        layers.{i}: post-norm `EncoderLayer` with a PReLU, ffns.0.layers.0.1.weight.
        query_scale: `MLP` of two layers, C -> C -> C, one for all layers.
    """

    def __init__(self, embed_dim: int, num_heads: int, feedforward_dim: int, num_layers: int) -> None:
        super().__init__()
        layer = TransformerLayerConfig(embed_dim, num_heads, feedforward_dim)
        self.layers = nn.ModuleList(EncoderLayer(layer) for _ in range(num_layers))
        _learn_slopes(self)
        self.query_scale = MLP(MLPConfig(embed_dim, embed_dim, embed_dim, num_layers=2))

    def forward(self, cells: ImageTokens) -> Float[Tensor, "batch cell embed"]:
        """What the last layer gives out, without a further norm."""
        x = cells.features
        for layer in self.layers:
            position = cells.position * self.query_scale(x)
            x = layer(x, query_pos=position, query_key_padding_mask=cells.padding)
        return x


class DABDecoderLayer(nn.Module):
    """x <- norm(x + self-attention), x <- norm(x + cross-attention), x <- norm(x + feed-forward)

    Parameters:
        attentions.0, attentions.1: see `ConditionalSelfAttention`, `ConditionalCrossAttention`.
        ffns.0: `FeedForward` with a PReLU.
        norms.0, norms.1, norms.2: nn.LayerNorm.
    """

    def __init__(self, embed_dim: int, num_heads: int, feedforward_dim: int, *, first: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            [
                ConditionalSelfAttention(embed_dim, num_heads),
                ConditionalCrossAttention(embed_dim, num_heads, first=first),
            ]
        )
        self.ffns = nn.ModuleList([FeedForward(FeedForwardConfig(embed_dim, feedforward_dim))])
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(3))
        _learn_slopes(self)

    def forward(
        self,
        query: Float[Tensor, "batch query embed"],
        query_pos: Float[Tensor, "batch query embed"],
        query_sine: Float[Tensor, "batch query embed"],
        memory: Float[Tensor, "batch cell embed"],
        memory_pos: Float[Tensor, "batch cell embed"],
        key_padding_mask: Bool[Tensor, "batch cell"],
        attn_mask: Bool[Tensor, "query query"] | None = None,
    ) -> Float[Tensor, "batch query embed"]:
        """The queries after the layer; the arguments are those of the two attentions."""
        query = self.norms[0](self.attentions[0](query, query_pos, attn_mask))
        gathered = self.attentions[1](query, memory, query_pos, query_sine, memory_pos, key_padding_mask)
        query = self.norms[1](gathered)
        return self.norms[2](self.ffns[0](query))


class DABDecoder(nn.Module):
    """x_{i+1} = layer_i(x_i, box_i), box_{i+1} = sigmoid(bbox_embed(x_{i+1}) + logit(box_i))

    Of box (x, y, w, h) and content x_i each layer is told

        query_pos  = ref_point_head(waves(y, x, w, h))
        query_sine = waves(y, x) * query_scale(x_i) * (h_i / h for the half of y, w_i / w for the half of x),
        (w_i, h_i) = sigmoid(ref_anchor_head(x_i)),

    query_scale from the second layer on. A narrow box so gets steep scores across, and a flat one along it.

    Parameters (C = embed_dim):
        layers.{i}: see `DABDecoderLayer`.
        query_scale, ref_point_head, ref_anchor_head: `MLP`s of two layers, C -> C -> C, 2C -> C -> C, C -> C -> 2.
        post_norm_layer: nn.LayerNorm on what each layer gives out.
    """

    def __init__(self, embed_dim: int, num_heads: int, feedforward_dim: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DABDecoderLayer(embed_dim, num_heads, feedforward_dim, first=number == 0) for number in range(num_layers)
        )
        self.query_scale = MLP(MLPConfig(embed_dim, embed_dim, embed_dim, num_layers=2))
        self.ref_point_head = MLP(MLPConfig(2 * embed_dim, embed_dim, embed_dim, num_layers=2))
        self.ref_anchor_head = MLP(MLPConfig(embed_dim, embed_dim, 2, num_layers=2))
        self.post_norm_layer = nn.LayerNorm(embed_dim)

    def forward(
        self,
        content: Float[Tensor, "batch query embed"],
        references: Float[Tensor, "batch query 4"],
        memory: Float[Tensor, "batch cell embed"],
        cells: ImageTokens,
        bbox_embed: MLP,
        attn_mask: Bool[Tensor, "query query"] | None = None,
    ) -> tuple[Float[Tensor, "layer batch query embed"], Float[Tensor, "layer batch query 4"]]:
        """What each layer gives out, normed, and the boxes that its corrections are meant for.

        Args:
            content: what the queries hold at the beginning.
            references: their boxes, (x, y, w, h) relative to the image, in float32 or wider.
            memory: what the encoder made of the cells.
            cells: position and padding of the map.
            bbox_embed: the head that corrects boxes, which is also the one that predicts them.
            attn_mask: of the self-attentions, True forbids.

        Returns:
            hidden states and references. A layer is fed its box detached; the box returned for a prediction keeps its
            graph, so that the loss of layer i also trains the corrections of layer i - 1.
        """
        hidden, boxes = [], [references]
        fed = references
        for number, layer in enumerate(self.layers):
            query_pos, query_sine = self._positions(content, fed, first=number == 0)
            content = layer(content, query_pos, query_sine, memory, cells.position, cells.padding, attn_mask)
            hidden.append(self.post_norm_layer(content))
            boxes.append(refine_boxes(bbox_embed(content), fed))
            fed = boxes[-1].detach()
        return torch.stack(hidden), torch.stack(boxes[:-1])

    def _positions(
        self, content: Float[Tensor, "batch query embed"], box: Float[Tensor, "batch query 4"], *, first: bool
    ) -> tuple[Float[Tensor, "batch query embed"], Float[Tensor, "batch query embed"]]:
        """query_pos and query_sine of the class's formulas."""
        waves = box_position_embedding(box, num_pos_feats=content.shape[-1] // 2).to(content.dtype)
        of_centre = waves[..., : content.shape[-1]]
        if not first:
            of_centre = of_centre * self.query_scale(content)
        of_y, of_x = of_centre.chunk(2, dim=-1)
        spread = self.ref_anchor_head(content).sigmoid() / box[..., 2:]
        width, height = spread.to(content.dtype).split(1, dim=-1)
        return self.ref_point_head(waves), torch.cat((of_y * height, of_x * width), dim=-1)


def _learn_slopes(module: nn.Module) -> None:
    """Instead of every feed-forward network's ReLU a PReLU, max(x, 0) + a min(x, 0), a learned and 0.25 at first."""
    for network in module.modules():
        if isinstance(network, FeedForward):
            hidden = network.layers[0]
            assert isinstance(hidden, nn.Sequential)
            hidden[1] = nn.PReLU()
