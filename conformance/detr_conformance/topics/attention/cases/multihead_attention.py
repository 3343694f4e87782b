"""Cases of `multihead_attention`: every parameter is random, masks differ between images and heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case, parameters_of, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject

MASKS = ("none", "boolean", "boolean by head", "additive", "additive by head")
CONTENTS = ("query", "key", "value", "identity")
POSITIONS = ("query_pos", "key_pos")


@dataclass(frozen=True)
class Attention:
    """The sizes of a module and of one call; channels are a head's.

    Attributes:
        given: which of query, key, value, identity, query_pos and key_pos are arguments of the call.
        mask: the kind of attn_mask, one of MASKS.
        padded: whether there is a key_padding_mask.
    """

    batch: int = 2
    queries: int = 5
    keys: int = 7
    heads: int = 3
    channels: int = 4
    given: tuple[str, ...] = (*CONTENTS, *POSITIONS)
    mask: str = "none"
    padded: bool = False
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    @property
    def embed(self) -> int:
        return self.heads * self.channels

    def length(self, name: str) -> int:
        """Rows of an input; those of key and value are the queries' where no key is given."""
        of_keys = name in ("key", "value", "key_pos") and "key" in self.given
        return self.keys if of_keys else self.queries

    def settings(self) -> dict[str, Any]:
        sizes = {"embed_dim": self.embed, "num_heads": self.heads}
        return {**sizes, "attn_drop": self.attn_drop, "proj_drop": self.proj_drop}


# Ordinary calls: with all arguments; of self-attention, in two arguments; of as many keys as queries.
ALL = Attention()
ITSELF = Attention(given=("query", "query_pos"), queries=6, heads=2, channels=5)
SQUARE = Attention(queries=6, keys=6)


def attention_case(subject: Subject, s: Attention, *seed: Any, note: str = "") -> Case:
    """A random call of a random module; no query is forbidden everything."""
    fill = Filler(subject.dtype, subject.settings.seed, "attention", note, s, *seed)
    inputs = {name: fill.normal(s.batch, s.length(name), s.embed) for name in s.given}
    if s.mask != "none":
        inputs["attn_mask"] = _attn_mask(fill, s)
    if s.padded:
        inputs["key_padding_mask"] = padding(fill, s)
    return block_case(subject, inputs, _parameters(fill, s), s.settings(), note or "random attention")


def padding(fill: Filler, s: Attention) -> Tensor:
    """(B, K) bool, scattered: the first image lacks its first key, the second its last one, all have the middle one."""
    keys = s.length("key")
    mask = fill.chance(0.3, s.batch, keys)
    for image in range(s.batch):
        mask[image, -(image % 2)] = True
    mask[:, keys // 2] = False
    return mask


def forbidden_pairs(case: Case) -> Tensor:
    """(B, M, Q, K) bool: which query may not attend to which key, by both masks."""
    heads, (batch, queries, _) = settings_of(case)["num_heads"], case["query"].shape
    keys = case["key" if "key" in case.tensors else "query"].shape[1]
    pairs = torch.zeros(batch, heads, queries, keys, dtype=torch.bool)
    if "attn_mask" in case.tensors:
        mask = case["attn_mask"]
        forbidden = mask if mask.dtype == torch.bool else mask == -torch.inf
        pairs |= forbidden if mask.ndim == 2 else forbidden.view(pairs.shape)
    if "key_padding_mask" in case.tensors:
        pairs |= case["key_padding_mask"][:, None, None]
    return pairs


def projected(case: Case, third: int, name: str) -> Tensor:
    """One of the three projections of an input, in float64."""
    parameters = parameters_of(case)
    weight, bias = (parameters[f"in_proj_{kind}"].double().chunk(3)[third] for kind in ("weight", "bias"))
    return case[name].double() @ weight.T + bias


def representative_multihead_attention(subject: Subject) -> list[Case]:
    """Everything at once; self-attention in two arguments; a plain cross-attention."""
    itself = Attention(given=("query", "query_pos"), queries=6, heads=2, mask="additive", padded=True)
    return [
        attention_case(subject, Attention(mask="boolean by head", padded=True), note="all arguments"),
        attention_case(subject, itself, note="self-attention"),
        attention_case(subject, Attention(given=("query", "key"), batch=3, keys=4, padded=True), note="query and key"),
    ]


@composite
def attentions(draw: st.DrawFn) -> Attention:
    """Small calls of every kind."""
    optional = draw(st.sets(st.sampled_from((*CONTENTS[1:], *POSITIONS))))
    return Attention(
        batch=draw(st.integers(1, 3)),
        queries=draw(st.integers(1, 9)),
        keys=draw(st.integers(1, 9)),
        heads=draw(st.integers(1, 4)),
        channels=draw(st.integers(1, 6)),
        given=tuple(name for name in (*CONTENTS, *POSITIONS) if name == "query" or name in optional),
        mask=draw(st.sampled_from(MASKS)),
        padded=draw(st.booleans()),
    )


def drawn_attention(subject: Subject) -> st.SearchStrategy[Case]:
    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        layout = draw(ANY_LAYOUT)
        return attention_case(subject, draw(attentions()), draw(SEEDS)).laid_out(layout)

    return draw_case()


def showing_weights(subject: Subject, s: Attention, note: str) -> Case:
    """A call whose output, viewed (B, Q, M, K), is the attention weights themselves: head m has a channel for each of
    its keys, values are one-hot, their projection and that of the output do nothing, the identity is zero."""
    s = replace(s, channels=s.keys)
    case = attention_case(subject, s, note=note)
    weight, bias = (parameters_of(case)[f"in_proj_{kind}"].clone() for kind in ("weight", "bias"))
    eye = torch.eye(s.embed, dtype=weight.dtype)
    weight[2 * s.embed :], bias[2 * s.embed :] = eye, 0
    changes = {
        "value": torch.eye(s.keys, dtype=weight.dtype).repeat(s.batch, 1, s.heads),
        "identity": torch.zeros_like(case["identity"]),
        "parameter:in_proj_weight": weight,
        "parameter:in_proj_bias": bias,
        "parameter:out_proj.weight": eye,
        "parameter:out_proj.bias": torch.zeros(s.embed, dtype=weight.dtype),
    }
    return case.having(**changes)


def _parameters(fill: Filler, s: Attention) -> dict[str, Tensor]:
    scale = s.embed**-0.5
    return {
        "in_proj_weight": scale * fill.normal(3 * s.embed, s.embed),
        "in_proj_bias": 0.7 * fill.normal(3 * s.embed),
        "out_proj.weight": scale * fill.normal(s.embed, s.embed),
        "out_proj.bias": fill.normal(s.embed),
    }


def _attn_mask(fill: Filler, s: Attention) -> Tensor:
    """The middle key is allowed to every query."""
    keys = s.length("key")
    slices = (s.batch * s.heads,) if s.mask.endswith("by head") else ()
    forbidden = fill.chance(0.4, *slices, s.queries, keys)
    forbidden[..., keys // 2] = False
    if s.mask.startswith("boolean"):
        return forbidden
    return (1.5 * fill.normal(*forbidden.shape)).masked_fill(forbidden & fill.chance(0.5, *forbidden.shape), -torch.inf)
