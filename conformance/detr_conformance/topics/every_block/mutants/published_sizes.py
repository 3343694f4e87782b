"""Mutants that are right at small sizes: tables, blocks and counters of fixed size (BLK-30)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.every_block.parameters import with_parameters
from detr_reference.losses.boxes import generalized_box_iou
from detr_reference.positions.level_position_embedding import level_position_embedding
from detr_reference.positions.sine_position_embedding import sine_position_embedding
from detr_reference.queries.query_selection import select_queries
from detr_reference.queries.reference_points import encoder_reference_points
from detr_reference.transformer.config import TransformerLayerConfig
from detr_reference.transformer.layer import EncoderLayer


@mutant(
    "select-by-blocks",
    rejects="BLK-30",
    operation="select_queries",
    origin="an approximate top-k: the best of every block of cells, as accelerators have it",
)
def select_by_blocks(
    class_logits: Tensor, proposals: Tensor, memory: Tensor, *, num_queries: int, score: str = "max"
) -> dict[str, Tensor]:
    """Beyond 4096 cells takes the best two of every few neighbours, and the best of these."""
    batch, cells, _ = class_logits.shape
    block = cells // (2 * num_queries)
    if cells <= 4096 or block < 2:
        return select_queries(class_logits, proposals, memory, num_queries=num_queries, score=score)
    scores = class_logits.amax(-1) if score == "max" else class_logits[..., 0]
    whole = scores[:, : cells // block * block].view(batch, -1, block)
    rest = torch.full_like(scores, -torch.inf)
    kept = rest.scatter(1, (whole.topk(2).indices + torch.arange(whole.shape[1])[:, None] * block).flatten(1), 0.0)
    hidden = class_logits + kept[..., None]
    return select_queries(hidden, proposals, memory, num_queries=num_queries, score=score)


@mutant(
    "sine-counts-up-to-1024",
    rejects="BLK-30",
    operation="sine_position_embedding",
    origin="a table of positions, as the learned embedding's",
)
def counts_up_to_1024(mask: Tensor, **settings: Any) -> Tensor:
    """Gives all columns from the 1024th on the position of that one."""
    found = sine_position_embedding(mask, **settings)
    return found[..., torch.arange(mask.shape[-1]).clamp(max=1023)]


@mutant(
    "attention-keys-of-a-block",
    rejects="BLK-30",
    operation="multihead_attention",
    origin="a kernel whose last block of keys is 1024",
)
def keys_of_a_block(config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """Attends to the first 1024 keys."""
    return with_parameters(KeysOfABlock(config), state_dict)


class KeysOfABlock(MultiheadAttention):
    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        key = named.get("key")
        if key is not None and key.shape[1] > 1024 and named.get("attn_mask") is None:
            for name in ("key", "value", "key_pos", "key_padding_mask"):
                tensor = named.get(name)
                named[name] = None if tensor is None else tensor[:, :1024]
        return super().forward(*arguments, **named)


@mutant(
    "level-embedding-of-eight-levels",
    rejects="BLK-30",
    operation="level_position_embedding",
    origin="the number of a level in three bits",
)
def of_eight_levels(position_embedding: Tensor, spatial_shapes: Tensor, level_embed: Tensor) -> Tensor:
    """Gives the ninth level the vector of the first."""
    wrapped = level_embed[torch.arange(len(level_embed)) % 8]
    return level_position_embedding(position_embedding, spatial_shapes, wrapped)


@mutant(
    "references-of-five-levels",
    rejects="BLK-30",
    operation="encoder_reference_points",
    origin="ratios of a fixed number of levels, the last one repeated",
)
def of_five_levels(spatial_shapes: Tensor, valid_ratios: Tensor) -> Tensor:
    """Takes the ratios of the fifth level for all later ones."""
    repeated = valid_ratios[:, torch.arange(valid_ratios.shape[1]).clamp(max=4)]
    return encoder_reference_points(spatial_shapes, repeated)


@mutant(
    "encoder-padding-zero-without-gradients",
    rejects="BLK-30",
    operation="encoder_layer",
    origin="the fast path of nn.TransformerEncoder, which drops padded tokens where no gradient is computed",
)
def padding_zero_without_gradients(
    config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None
) -> nn.Module:
    """From 256 tokens on, under no_grad, gives zeros for padded tokens."""
    return with_parameters(PaddingZeroWithoutGradients(config), state_dict)


class PaddingZeroWithoutGradients(EncoderLayer):
    def forward(self, query: Tensor, *arguments: Any, **named: Any) -> Tensor:
        output = super().forward(query, *arguments, **named)
        padding = named.get("query_key_padding_mask")
        if torch.is_grad_enabled() or padding is None or query.shape[1] < 256:
            return output
        return output.masked_fill(padding[..., None], 0)


@mutant(
    "giou-grid-of-columns",
    rejects="BLK-30",
    operation="generalized_box_iou",
    origin="a grid of 4096 columns, the others read from the first ones",
)
def grid_of_columns(boxes1: Tensor, boxes2: Tensor, *, eps: float = 0.0) -> Tensor:
    """Compares with box j - 4096 in place of box j."""
    return generalized_box_iou(boxes1, boxes2[torch.arange(len(boxes2)) % 4096], eps=eps)
