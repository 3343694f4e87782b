"""Right decoders, written differently."""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.attention.mutants.multihead_attention import HandWrittenAttention
from detr_conformance.topics.queries.mutants.decoder import At, Boxes, Call, HandWrittenDecoder, Tokens


@twin(
    "decoder-heads-after-the-loop",
    operation="dino_decoder",
    origin="DINO, models/dino/dino.py: the model predicts from the lists that its decoder returns; sequences first",
)
class HeadsAfterTheLoop(HandWrittenDecoder):
    """Keeps states and references first and predicts from them afterwards; torch's own attention, sequences first."""

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
        fed = reference_points.detach().to(wide)
        ratios = valid_ratios.to(wide)
        call = Call(memory, fed, attn_mask, key_padding_mask, spatial_shapes, level_start_index, ratios)
        states, references = [], [fed]
        for index in range(self.config.num_layers):
            at = At(index, query, fed, fed)
            query = self.layer(at, self.position(at, call).to(query.dtype), call)
            states.append(self.normalised(query))
            refined = self.refined(at, query, states[-1], call)
            references.append(refined if self.config.look_forward_twice else refined.detach())
            fed = refined.detach()
        heads = [self.head_of(index) for index in range(self.config.num_layers)]
        boxes = [
            self.moved(self.delta(head, state), returned)
            for head, state, returned in zip(heads, states, references, strict=False)
        ]
        logits = [self.class_embed[head](state) for head, state in zip(heads, states, strict=True)]
        return {
            "pred_boxes": torch.stack(boxes).to(query.dtype),
            "pred_logits": torch.stack(logits).to(query.dtype),
            "references": torch.stack(references).to(query.dtype),
            "hidden_states": torch.stack(states).to(query.dtype),
        }

    def among_queries(self, at: At, x: Tokens, position: Tokens, call: Call) -> Tokens:
        attention = self.parameters_of(at).attentions[0]
        assert isinstance(attention, HandWrittenAttention)
        placed = (x + position).transpose(0, 1)
        attended, _ = F.multi_head_attention_forward(
            placed,
            placed,
            x.transpose(0, 1),
            self.config.embed_dim,
            self.config.num_heads,
            attention.in_proj_weight,
            attention.in_proj_bias,
            None,
            None,
            False,
            self.config.dropout,
            attention.out_proj.weight,
            attention.out_proj.bias,
            training=self.training,
            need_weights=False,
            attn_mask=call.attn_mask,
        )
        return self.dropped(attended.transpose(0, 1))


@twin(
    "decoder-one-call-of-the-head",
    operation="dino_decoder",
    origin="bare and normed outputs end to end, so that a layer calls its box head once",
)
class OneCallOfTheHead(HandWrittenDecoder):
    """Gives the box head both outputs of a layer at once."""

    now = threading.local()

    def refined(self, at: At, out: Tokens, state: Tokens, call: Call) -> Boxes:
        both = torch.cat((out, state.to(out.dtype)), 1)
        delta, self.now.of_prediction = self.delta(self.head_of(at.number), both).chunk(2, 1)
        return self.moved(delta, at.fed)

    def predicted(self, at: At, state: Tokens, refined: Boxes) -> Boxes:
        return self.moved(self.now.of_prediction, at.returned)
