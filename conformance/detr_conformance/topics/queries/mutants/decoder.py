"""DINO's decoder, one overridable step after another, around the hand-written attentions. Clauses: spec chapter 12.

It shares only parameter names and configuration with the reference. The unchanged decoder is a twin; the mutants and
the other twins of the decoder override one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.attention.mutants.multihead_attention import HandWrittenAttention
from detr_conformance.topics.deformable_attention.mutants.module import HandWrittenModule
from detr_conformance.topics.positions.mutants.embeddings import BoxByHand
from detr_conformance.topics.transformer.mutants.layers import Network
from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.queries.config import DINODecoderConfig

OPERATION = "dino_decoder"

Tokens = Float[Tensor, "batch token embed"]
Boxes = Float[Tensor, "batch query 4"]
State = Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Call:
    """The arguments that all layers share; ratios in the dtype of boxes."""

    memory: Tokens
    initial: Boxes
    attn_mask: Bool[Tensor, "query query"] | None
    padding: Bool[Tensor, "batch cell"] | None
    spatial_shapes: Int[Tensor, "level 2"]
    level_start_index: Int[Tensor, " level"]
    ratios: Float[Tensor, "batch level 2"]


class At(NamedTuple):
    """Where the decoder stands before a layer."""

    number: int
    stream: Tokens
    fed: Boxes
    returned: Boxes


class Perceptron(nn.Module):
    """The parameters of a perceptron."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(wide, narrow) for wide, narrow in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x) if number == 0 else layer(F.relu(x))
        return x


class Layer(nn.Module):
    """The parameters of one layer."""

    def __init__(self, config: DINODecoderConfig) -> None:
        super().__init__()
        embed, heads, drop = config.embed_dim, config.num_heads, config.dropout
        among_queries = HandWrittenAttention(MultiheadAttentionConfig(embed, heads, drop, drop))
        to_memory = HandWrittenModule(MSDeformAttnConfig(embed, heads, config.num_levels, config.num_points, drop))
        self.attentions = nn.ModuleList([among_queries, to_memory])
        self.ffns = nn.ModuleList([Network(embed, config.feedforward_dim)])
        self.norms = nn.ModuleList(nn.LayerNorm(embed) for _ in range(3))


@twin("decoder-by-hand", operation=OPERATION, origin="detrex, projects/dino/modeling, as one module with its heads")
class HandWrittenDecoder(nn.Module):
    """Runs through layers, references and heads step by step, around the hand-written attentions."""

    def __init__(self, config: DINODecoderConfig, state_dict: State = None) -> None:
        super().__init__()
        self.config = config
        embed, heads = config.embed_dim, 1 if config.shared_heads else config.num_layers
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(embed)
        self.ref_point_head = Perceptron(2 * embed, embed, embed)
        self.bbox_embed = nn.ModuleList(Perceptron(embed, embed, embed, 4) for _ in range(heads))
        self.class_embed = nn.ModuleList(nn.Linear(embed, config.num_classes) for _ in range(heads))
        with torch.no_grad():
            self.initialise()
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def initialise(self) -> None:
        for head in self.class_embed:
            self.initialise_scores(head)
        for head in self.bbox_embed:
            self.initialise_deltas(head)

    def initialise_scores(self, head: nn.Module) -> None:
        assert isinstance(head, nn.Linear)
        head.bias.fill_(math.log(0.01 / 0.99))

    def initialise_deltas(self, head: nn.Module) -> None:
        assert isinstance(head, Perceptron)
        for parameter in head.layers[-1].parameters():
            parameter.zero_()

    # The loop.

    def forward(
        self,
        query: Tokens,
        memory: Tokens,
        reference_points: Boxes,
        attn_mask: Bool[Tensor, "query query"] | None = None,
        key_padding_mask: Bool[Tensor, "batch cell"] | None = None,
        *,
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
        valid_ratios: Float[Tensor, "batch level 2"],
    ) -> dict[str, Tensor]:
        wide = self.wide(query.dtype)
        initial, ratios = self.initial(reference_points.to(wide)), valid_ratios.to(wide)
        call = Call(memory, initial, attn_mask, key_padding_mask, spatial_shapes, level_start_index, ratios)
        at = At(0, query, initial.detach(), initial)
        found: dict[str, list[Tensor]] = {name: [] for name in ("hidden_states", "pred_logits", "pred_boxes")}
        references = [at.returned]
        for index in range(self.config.num_layers):
            out = self.layer(at, self.position(at, call).to(query.dtype), self.layer_call(index, call))
            state = self.normalised(out)
            found["hidden_states"].append(state)
            found["pred_logits"].append(self.scores(at, out, state))
            refined = self.refined(at, out, state, call)
            found["pred_boxes"].append(self.predicted(at, state, refined))
            at = At(index + 1, self.passed_on(out, state), *self.next_references(refined))
            references.append(at.returned)
        found["references"] = self.listed(references, call)
        order = ("hidden_states", "references", "pred_logits", "pred_boxes")
        return {name: self.stacked(found[name]).to(query.dtype) for name in order}

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64 if dtype == torch.float64 else torch.float32

    def layer_call(self, index: int, call: Call) -> Call:
        """What a layer is given of the call."""
        return call

    def stacked(self, layers: list[Tensor]) -> Tensor:
        return torch.cat([layer[None] for layer in layers])

    # References.

    def initial(self, boxes: Boxes) -> Boxes:
        return boxes.detach()

    def refined(self, at: At, out: Tokens, state: Tokens, call: Call) -> Boxes:
        return self.moved(self.delta(self.head_of(at.number), out), at.fed)

    def next_references(self, refined: Boxes) -> tuple[Boxes, Boxes]:
        """What the next layer looks from, and what its prediction is added to."""
        return refined.detach(), refined if self.config.look_forward_twice else refined.detach()

    def listed(self, references: list[Boxes], call: Call) -> list[Boxes]:
        return references

    def moved(self, delta: Boxes, boxes: Boxes) -> Boxes:
        return torch.special.expit(delta.to(boxes.dtype) + self.logit(boxes))

    def logit(self, boxes: Boxes) -> Boxes:
        inside, eps = boxes.clamp(0, 1), self.eps()
        return inside.clamp(min=eps).log() - (1 - inside).clamp(min=eps).log()

    def eps(self) -> float:
        return self.config.eps

    # Where a layer looks.

    def position(self, at: At, call: Call) -> Tokens:
        embedded = self.embedded(self.embedded_boxes(at, call))
        return self.ref_point_head(embedded.to(at.stream.dtype))

    def embedded_boxes(self, at: At, call: Call) -> Boxes:
        boxes = self.boxes_of_positions(at, call)
        return self.scaled(boxes, self.embedding_ratio(call)) if self.config.embed_scaled_references else boxes

    def boxes_of_positions(self, at: At, call: Call) -> Boxes:
        return at.fed

    def embedding_ratio(self, call: Call) -> Float[Tensor, "batch 1 2"]:
        return call.ratios[:, :1]

    def embedded(self, boxes: Boxes) -> Tokens:
        return BoxByHand()(boxes, num_pos_feats=self.config.embed_dim // 2)

    def scaled(self, boxes: Boxes, ratio: Float[Tensor, "batch 1 2"]) -> Boxes:
        return torch.cat((boxes[..., :2] * ratio, boxes[..., 2:] * ratio), -1)

    def looked_from(self, at: At, call: Call) -> Boxes:
        return at.fed

    def sampling_references(self, at: At, call: Call) -> Float[Tensor, "batch query level 4"]:
        boxes = self.looked_from(at, call)
        levels = call.ratios.shape[1]
        return torch.stack([self.scaled(boxes, self.sampling_ratio(call, level)) for level in range(levels)], 2)

    def sampling_ratio(self, call: Call, level: int) -> Float[Tensor, "batch 1 2"]:
        return call.ratios[:, level : level + 1]

    # A layer.

    def layer(self, at: At, position: Tokens, call: Call) -> Tokens:
        x = at.stream
        for number, sublayer in enumerate((self.among_queries, self.to_memory, self.network)):
            x = self.norm_of(at, number, x + sublayer(at, x, position, call))
        return x

    def parameters_of(self, at: At) -> Layer:
        layer = self.layers[at.number]
        assert isinstance(layer, Layer)
        return layer

    def norm_of(self, at: At, number: int, x: Tokens) -> Tokens:
        norm = self.parameters_of(at).norms[number]
        assert isinstance(norm, nn.LayerNorm)
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias)

    def among_queries(self, at: At, x: Tokens, position: Tokens, call: Call) -> Tokens:
        attention = self.parameters_of(at).attentions[0]
        placed, value = x + position, self.value(x, position)
        return attention(placed, placed, value, identity=torch.zeros_like(x), attn_mask=self.mask(call))

    def value(self, x: Tokens, position: Tokens) -> Tokens:
        return x

    def mask(self, call: Call) -> Bool[Tensor, "query query"] | None:
        return call.attn_mask

    def to_memory(self, at: At, x: Tokens, position: Tokens, call: Call) -> Tokens:
        attention = self.parameters_of(at).attentions[1]
        return attention(
            self.looking(x, position),
            call.memory,
            torch.zeros_like(x),
            key_padding_mask=call.padding,
            reference_points=self.sampling_references(at, call),
            spatial_shapes=call.spatial_shapes,
            level_start_index=call.level_start_index,
        )

    def looking(self, x: Tokens, position: Tokens) -> Tokens:
        return x + position

    def network(self, at: At, x: Tokens, position: Tokens, call: Call) -> Tokens:
        network = self.parameters_of(at).ffns[0]
        assert isinstance(network, Network)
        first, last = network.layers
        hidden = self.dropped(self.activation(first(x)))
        return self.dropped(last(hidden))

    def activation(self, x: Tokens) -> Tokens:
        return F.relu(x) if self.config.activation == "relu" else F.gelu(x)

    def dropped(self, x: Tokens) -> Tokens:
        return F.dropout(x, self.config.dropout, self.training)

    # Predictions.

    def normalised(self, out: Tokens) -> Tokens:
        return F.layer_norm(out, out.shape[-1:], self.norm.weight, self.norm.bias)

    def passed_on(self, out: Tokens, state: Tokens) -> Tokens:
        return out

    def head_of(self, index: int) -> int:
        """The number of a layer's heads."""
        return 0 if self.config.shared_heads else index

    def delta(self, head: int, tokens: Tokens) -> Boxes:
        return self.bbox_embed[head](tokens)

    def scores(self, at: At, out: Tokens, state: Tokens) -> Float[Tensor, "batch query class"]:
        return self.class_embed[self.head_of(at.number)](state)

    def predicted(self, at: At, state: Tokens, refined: Boxes) -> Boxes:
        return self.moved(self.delta(self.head_of(at.number), state), at.returned)
