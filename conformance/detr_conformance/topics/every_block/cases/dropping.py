"""Complete calls of blocks that drop, at probabilities that show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch

from detr_conformance import operations
from detr_conformance.harness.block_case import inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.attention.cases.multihead_attention import Attention, attention_case
from detr_conformance.topics.deformable_attention.cases.module import ModuleStructure, module_case
from detr_conformance.topics.every_block.cases.representative import representative
from detr_conformance.topics.feed_forward.cases import network_case

DROPOUTS = ("attn_drop", "proj_drop", "ffn_drop", "dropout")
CHANNELS = 64  # of a token; that two of them lose the same half does not happen by chance
TOKENS = 1300  # of each of two images, more than any block of tokens


def _dropouts(operation: str) -> list[str]:
    config = operations.OPERATIONS[operation].config
    return [] if config is None else [f.name for f in fields(operations.resolve(config)) if f.name in DROPOUTS]


DROPPING = tuple(operation for operation in BLOCKS if _dropouts(operation))


def with_dropout(subject: Subject) -> list[Case]:
    """Complete calls, where there is dropout at a probability that would show."""
    drops = dict.fromkeys(_dropouts(subject.operation), "0.5")
    return [replace(case, options=case.options | drops) for case in representative(subject)]


def _attention(subject: Subject) -> Case:
    return attention_case(subject, Attention(2, TOKENS, 5, 2, CHANNELS // 2), note="tokens that are alike")


def _sampling(subject: Subject) -> Case:
    s = ModuleStructure(queries=TOKENS, heads=2, channels=CHANNELS // 2)
    return module_case(subject, s, note="tokens that are alike")


def _network(subject: Subject) -> Case:
    return network_case(subject, note="tokens that are alike", leading=(2, TOKENS), embed_dim=CHANNELS)


MANY_TOKENS: dict[str, Callable[[Subject], Case]] = {
    "multihead_attention": _attention,
    "ms_deform_attn_module": _sampling,
    "feed_forward": _network,
}
OF_A_TOKEN = ("x", "query", "query_pos", "reference_points")
LAST = ("proj_drop", "dropout", "ffn_drop")  # of the result


def alike_tokens(subject: Subject) -> list[Case]:
    """Every token is the first one of the first image, and there is no identity to tell them apart."""
    if subject.operation not in MANY_TOKENS:
        return []
    case = MANY_TOKENS[subject.operation](subject)
    given = inputs_of(subject.operation, case)
    changes: dict[str, Any] = {n: t[:1, :1].expand_as(t).contiguous() for n, t in given.items() if n in OF_A_TOKEN}
    changes |= {n: t[:1].expand_as(t).contiguous() for n, t in given.items() if n in ("key", "value", "key_pos")}
    changes["identity"] = torch.zeros_like(given["identity"])
    drops = {name: "0.5" for name in _dropouts(subject.operation) if name in LAST}
    return [replace(case.having(**changes), options=case.options | drops)]
