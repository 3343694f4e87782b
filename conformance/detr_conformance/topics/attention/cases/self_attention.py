"""Cases of `self_attention` and `cross_attention`: every parameter is random; channels, heads and lengths differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject


@dataclass(frozen=True)
class AttentionStructure:
    """The sizes of a module and of one call; channels are a head's, `keys` is cross-attention's alone."""

    batch: int = 2
    tokens: int = 5
    keys: int = 7
    heads: int = 3
    channels: int = 4
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    @property
    def embed(self) -> int:
        return self.heads * self.channels

    def settings(self) -> dict[str, Any]:
        return {
            "embed_dim": self.embed,
            "num_heads": self.heads,
            "qkv_bias": self.qkv_bias,
            "attn_drop": self.attn_drop,
            "proj_drop": self.proj_drop,
        }


def self_attention_case(subject: Subject, s: AttentionStructure, *seed: Any, note: str = "") -> Case:
    """A random call of a random module."""
    fill = Filler(subject.dtype, subject.settings.seed, "self attention", note, s, *seed)
    inputs = {"x": fill.normal(s.batch, s.tokens, s.embed)}
    parameters = _linears(fill, s, {"qkv": 3 * s.embed})
    return block_case(subject, inputs, parameters, s.settings(), note or "random self-attention")


def cross_attention_case(subject: Subject, s: AttentionStructure, *seed: Any, note: str = "") -> Case:
    """A random call of a random module; key and value are unrelated."""
    fill = Filler(subject.dtype, subject.settings.seed, "cross attention", note, s, *seed)
    lengths = {"query": s.tokens, "key": s.keys, "value": s.keys}
    inputs = {name: fill.normal(s.batch, length, s.embed) for name, length in lengths.items()}
    parameters = _linears(fill, s, dict.fromkeys("qkv", s.embed))
    return block_case(subject, inputs, parameters, s.settings(), note or "random cross-attention")


def attention_case(subject: Subject, s: AttentionStructure, *seed: Any, note: str = "") -> Case:
    """A random call of the subject's own operation."""
    make_case = self_attention_case if subject.operation == "self_attention" else cross_attention_case
    return make_case(subject, s, *seed, note=note)


def with_projections(case: Case, part: str, values: Tensor) -> Case:
    """The case with the weight or bias of query, key and value replaced: (3, C, C) or (3, C)."""
    if f"parameter:qkv.{part}" in case.tensors:
        return with_parameters(case, **{f"qkv__{part}": values.flatten(0, 1)})
    return with_parameters(case, **{f"{name}__{part}": value for name, value in zip("qkv", values, strict=True)})


def one_winner(subject: Subject, note: str = "one key wins") -> Case:
    """Logits of 45000 for the one key that matches, 0 for the others; unscaled products of 90000, beyond float16.

    The rows of query and key projections are signs times 150; the inputs pick columns. Values are random, so that the
    output tells which key won. Four keys for four patterns of signs: two that match would share by their rounding.
    """
    s = AttentionStructure(tokens=4, keys=4, heads=2, channels=4, qkv_bias=False)
    case = attention_case(subject, s, note=note)
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    columns = torch.arange(s.embed) % 4
    asks = torch.cat((signs[columns], signs[columns]), 1).T  # (out, in): head, channel
    answers = torch.cat((signs[columns], signs[(columns + 1) % 4]), 1).T
    fill = Filler(subject.dtype, subject.settings.seed, note)
    weight = torch.stack((150 * asks, 150 * answers, fill.normal(s.embed, s.embed)))
    one_hot = {
        name: torch.eye(s.embed, dtype=case[name].dtype)[: case[name].shape[1]].expand_as(case[name]).contiguous()
        for name in ("x", "query", "key")
        if name in case.tensors
    }
    return with_projections(case.having(**one_hot), "weight", weight)


def representative_self_attention(subject: Subject) -> list[Case]:
    return _representative(subject)


def representative_cross_attention(subject: Subject) -> list[Case]:
    return _representative(subject)


def drawn_attentions(subject: Subject) -> st.SearchStrategy[Case]:
    """Calls of modules of every structure and layout."""

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        size = st.integers(1, 6)
        s = AttentionStructure(
            batch=draw(st.integers(1, 3)),
            tokens=draw(st.integers(1, 9)),
            keys=draw(st.integers(1, 9)),
            heads=draw(st.integers(1, 4)),
            channels=draw(size),
            qkv_bias=draw(st.booleans()),
        )
        case = attention_case(subject, s, draw(SEEDS), note="drawn")
        return case.laid_out(draw(ANY_LAYOUT))

    return draw_case()


def _representative(subject: Subject) -> list[Case]:
    structures = (AttentionStructure(), AttentionStructure(batch=3, tokens=7, keys=4, heads=2, qkv_bias=False))
    return [attention_case(subject, s, note="representative") for s in structures]


def _linears(fill: Filler, s: AttentionStructure, projections: dict[str, int]) -> dict[str, Tensor]:
    """Weights of variance 1 / C, so that the logits of a query differ by about one; biases of variance one half."""
    parameters = {}
    for name, features in {**projections, "proj": s.embed}.items():
        parameters[f"{name}.weight"] = s.embed**-0.5 * fill.normal(features, s.embed)
        if s.qkv_bias or name == "proj":
            parameters[f"{name}.bias"] = 0.5**0.5 * fill.normal(features)
    return parameters
