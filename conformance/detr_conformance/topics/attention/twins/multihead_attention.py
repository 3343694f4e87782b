"""Right implementations of multi-head attention, each written in another way than the reference."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.attention.mutants.multihead_attention import (
    HandWrittenAttention,
    Heads,
    Inputs,
    Pairs,
    Scores,
    Tokens,
)
from detr_reference.attention.config import MultiheadAttentionConfig


@twin("fused-attention", operation="multihead_attention", origin="torch, scaled_dot_product_attention")
class FusedAttention(HandWrittenAttention):
    """Hands heads and a mask, True where allowed, to torch's own kernel."""

    now = threading.local()

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if bias is not None and forbidden is not None:
            bias = bias.expand_as(scores).masked_fill(forbidden, -torch.inf)
        self.now.mask = bias if bias is not None or forbidden is None else ~forbidden
        return scores

    def dropped_weights(self, weights: Scores) -> Scores:
        return weights

    def projections(self, inputs: Inputs) -> list[Heads]:
        self.now.q, self.now.k, v = super().projections(inputs)
        return [self.now.q, self.now.k, v]

    def read(self, weights: Scores, v: Heads) -> Heads:
        rate = self.config.attn_drop if self.training else 0.0
        return F.scaled_dot_product_attention(self.now.q, self.now.k, v, self.now.mask, rate)


@twin(
    "batched-products", operation="multihead_attention", origin="torch, multi_head_attention_forward, need_weights=True"
)
class BatchedProducts(HandWrittenAttention):
    """Folds the heads into the batch and adds the mask inside the product of queries and keys."""

    now = threading.local()

    def scores(self, q: Heads, k: Heads) -> Scores:
        self.now.q, self.now.k = q.flatten(0, 1) * self.scale(), k.flatten(0, 1)
        return (self.now.q @ self.now.k.mT).unflatten(0, q.shape[:2])

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is None:
            return scores.softmax(-1)
        mask = scores.new_zeros(scores.shape) if bias is None else bias.expand_as(scores).to(scores.dtype)
        nothing = forbidden.all(-1, keepdim=True)
        mask = mask.masked_fill(forbidden, -torch.inf).masked_fill(nothing, 0)
        together = torch.baddbmm(mask.flatten(0, 1), self.now.q, self.now.k.mT).unflatten(0, scores.shape[:2])
        return together.softmax(-1).masked_fill(nothing, 0)


@twin("online-softmax", operation="multihead_attention", origin="FlashAttention, arXiv:2205.14135, algorithm 1")
class OnlineSoftmax(HandWrittenAttention):
    """Runs over blocks of four keys with a running maximum and sum, in float32 or better."""

    block = 4
    now = threading.local()

    def dropped_weights(self, weights: Scores) -> Scores:
        return weights if self.training and self.config.attn_drop else self.now.exponents

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        plain = super().weights(scores, bias, forbidden)
        wide = scores if bias is None else scores + bias
        wide = wide.to(torch.promote_types(wide.dtype, torch.float32))
        self.now.exponents = wide if forbidden is None else wide.masked_fill(forbidden, -torch.inf)
        return super().dropped_weights(plain)

    def read(self, weights: Scores, v: Heads) -> Heads:
        if self.training and self.config.attn_drop:
            return weights @ v
        best = weights.new_full((*weights.shape[:-1], 1), torch.finfo(weights.dtype).min)
        total, output = torch.zeros_like(best), weights.new_zeros(*weights.shape[:-1], v.shape[-1])
        for scores, values in zip(
            weights.split(self.block, -1), v.to(weights.dtype).split(self.block, -2), strict=True
        ):
            if scores.shape[-1] == 0:
                continue
            higher = torch.maximum(best, scores.detach().amax(-1, keepdim=True))
            powers, kept = (scores - higher).exp(), (best - higher).exp()
            total, output, best = total * kept + powers.sum(-1, keepdim=True), output * kept + powers @ values, higher
        return (output / total.masked_fill(total == 0, 1)).to(v.dtype)


@twin("queries-in-chunks", operation="multihead_attention", origin="memory-efficient attention, arXiv:2112.05682")
class QueriesInChunks(HandWrittenAttention):
    """Computes three queries at a time."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        def rows(tensor: Tensor | None) -> list[Tensor | None]:
            pieces = range(0, max(1, scores.shape[2]), 3)
            return [None if tensor is None else tensor[..., at : at + 3, :] for at in pieces]

        chunks = zip(rows(scores), rows(bias), rows(forbidden), strict=True)
        return torch.cat([super(QueriesInChunks, self).weights(s, b, f) for s, b, f in chunks if s is not None], 2)


@twin(
    "attention-in-float32",
    operation="multihead_attention",
    origin="softmax(dim=-1, dtype=torch.float32) in transformers",
)
class InFloat32(HandWrittenAttention):
    """Computes everything between the projections in float32 or better."""

    def projections(self, inputs: Inputs) -> list[Heads]:
        self.dtype = inputs.asking.dtype
        wide = torch.promote_types(self.dtype, torch.float32)
        return [heads.to(wide) for heads in super().projections(inputs)]

    def join(self, attended: Heads) -> Tokens:
        return super().join(attended).to(self.dtype)


@twin(
    "additive-minimum",
    operation="multihead_attention",
    origin="transformers' masks: torch.finfo(dtype).min in place of -inf",
)
class AdditiveMinimum(HandWrittenAttention):
    """Adds the lowest finite number instead of filling in -inf."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        if forbidden is None:
            return super().weights(scores, bias, forbidden)
        lowest = torch.finfo(scores.dtype).min
        mask = torch.zeros_like(scores) if bias is None else bias.expand_as(scores)
        scores = scores + mask.masked_fill(forbidden, lowest)
        return scores.softmax(-1).masked_fill(forbidden.all(-1, keepdim=True), 0)


@twin(
    "einsum-attention",
    operation="multihead_attention",
    origin="einsum over (batch, token, head, channel), as in EVA and JAX",
)
class EinsumAttention(HandWrittenAttention):
    """Leaves the heads behind the tokens, never transposes, and scales the scores instead of the queries."""

    def split(self, projected: Tokens) -> Heads:
        return projected.unflatten(-1, (self.heads, self.size))

    def scores(self, q: Heads, k: Heads) -> Scores:
        return torch.einsum("bqhc,bkhc->bhqk", q * self.size**-0.25, k * self.size**-0.25)

    def read(self, weights: Scores, v: Heads) -> Heads:
        return torch.einsum("bhqk,bkhc->bqhc", weights, v)

    def join(self, attended: Heads) -> Tokens:
        return attended.flatten(2)


@twin("separate-projections", operation="multihead_attention", origin="transformers: q_proj, k_proj, v_proj, o_proj")
class SeparateProjections(HandWrittenAttention):
    """Keeps a Linear for each third of the input projection, and says so by `spec_parameters`."""

    def __init__(self, config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config, state_dict)
        weights, biases = self.in_proj_weight.detach().chunk(3), self.in_proj_bias.detach().chunk(3)
        del self.in_proj_weight, self.in_proj_bias
        self.linears = nn.ModuleList()
        for weight, bias in zip(weights, biases, strict=True):
            linear = nn.Linear(config.embed_dim, config.embed_dim)
            linear.weight, linear.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
            self.linears.append(linear)

    def spec_parameters(self) -> dict[str, Tensor | tuple[Tensor, ...]]:
        own = dict(self.linears.named_parameters())
        return {
            "in_proj_weight": tuple(own[f"{third}.weight"] for third in range(3)),
            "in_proj_bias": tuple(own[f"{third}.bias"] for third in range(3)),
            "out_proj.weight": self.out_proj.weight,
            "out_proj.bias": self.out_proj.bias,
        }

    def projections(self, inputs: Inputs) -> list[Heads]:
        return [self.split(linear(each)) for linear, each in zip(self.linears, inputs[:3], strict=True)]
