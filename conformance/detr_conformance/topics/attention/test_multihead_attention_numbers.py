"""Multi-head attention: accuracy, gradients, initial parameters, wrong arguments. Clauses: MHA-24 to MHA-27."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.harness.block import agrees, fresh, gradients_agree, parameters_by_name, raises
from detr_conformance.harness.block_case import PARAMETER, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.attention.cases.multihead_attention import (
    ALL,
    ITSELF,
    SQUARE,
    Attention,
    attention_case,
    drawn_attention,
)

OPERATION = "multihead_attention"


@covers("MHA-24", cases=drawn_attention, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


AT_SCALE = Attention(queries=30, keys=150, heads=4, channels=16, mask="additive by head", padded=True)


@covers("MHA-24", cases=lambda subject: [attention_case(subject, AT_SCALE, note="many keys")])
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def differentiated(subject: Subject) -> Iterator[Case]:
    kinds = (
        replace(ALL, mask="boolean by head", padded=True),
        replace(ALL, batch=3, heads=2, mask="additive"),
        replace(ITSELF, padded=True),
        replace(SQUARE, given=("query", "key", "query_pos")),
    )
    for s in kinds:
        yield attention_case(subject, s, note="gradients")


@covers("MHA-25", cases=differentiated, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


def freshly_initialised(subject: Subject) -> Iterator[Case]:
    for heads, channels in ((4, 12), (3, 20)):
        yield attention_case(subject, replace(ALL, heads=heads, channels=channels), note="own parameters")


@covers("MHA-26", cases=freshly_initialised, once=True)
def test_initialisation(subject: Subject, case: Case) -> None:
    module = fresh(subject, case)
    found = {
        name: torch.cat([part.detach().cpu().double() for part in parts])
        for name, parts in parameters_by_name(subject.operation, module, case).items()
    }
    for name in ("in_proj_bias", "out_proj.bias"):
        subject.compare_exactly(name, found[name], torch.zeros_like(case[PARAMETER + name]).double())
    embed = settings_of(case)["embed_dim"]
    slack = max(1e-3, torch.finfo(subject.torch_dtype).eps)
    for name, bound in (("in_proj_weight", math.sqrt(6 / (4 * embed))), ("out_proj.weight", embed**-0.5)):
        for part, weight in enumerate(found[name].chunk(len(found[name]) // embed)):
            largest, spread = weight.abs().max().item(), weight.std().item()
            expect(
                0.95 * bound < largest <= bound * (1 + slack) and 0.95 < spread / (bound / math.sqrt(3)) < 1.05,
                f"{name}, part {part}: largest {largest:.4f}, deviation {spread:.4f}, "
                f"not those of a uniform distribution in +-{bound:.4f}",
                where=name,
                expected=f"uniform in +-{bound:.4f}",
                got=f"largest {largest:.4f}, deviation {spread:.4f}",
            )


def contradicting(subject: Subject) -> Iterator[Case]:
    case = attention_case(subject, ALL)
    q, k, b = ALL.queries, ALL.keys, ALL.batch

    def flags(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.bool)

    for note, changes in {
        "the key has one channel less": {"key": case["key"][..., 1:]},
        "the value has one row less": {"value": case["value"][:, 1:]},
        "the position of the key has one row": {"key_pos": case["key_pos"][:, :1]},
        "the position of the query has the length of the key": {"query_pos": case["key_pos"]},
        "the identity has one row": {"identity": case["identity"][:, :1]},
        "the mask is (key, query)": {"attn_mask": flags(k, q)},
        "the mask has one row": {"attn_mask": flags(1, k)},
        "the mask has a slice for each image": {"attn_mask": flags(b, q, k)},
        "the padding mask has the length of the query": {"key_padding_mask": flags(b, q)},
        "the padding mask is of one image": {"key_padding_mask": flags(1, k)},
    }.items():
        yield replace(case.having(**changes), note=note)


@covers("MHA-27", cases=contradicting, once=True)
def test_wrong_arguments(subject: Subject, case: Case) -> None:
    raises(subject, case, case.note)
