"""Multi-head attention: projections, heads, scale, softmax, any lengths in any order. Clauses: MHA-1 to MHA-7."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees, expectations, forward
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.attention.cases.multihead_attention import (
    ALL,
    ITSELF,
    SQUARE,
    attention_case,
    showing_weights,
)

OPERATION = "multihead_attention"


@covers("MHA-1", cases=lambda subject: [attention_case(subject, s, note="projections") for s in (ALL, ITSELF)])
def test_three_projections(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def unlike_sizes(subject: Subject) -> Iterator[Case]:
    for heads, channels in ((3, 4), (2, 5), (4, 2), (1, 6)):
        yield attention_case(subject, replace(ALL, heads=heads, channels=channels), note="heads and channels")
    yield attention_case(subject, replace(ALL, queries=3, heads=3), note="as many queries as heads")


@covers("MHA-2", cases=unlike_sizes)
def test_heads(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def head_sizes(subject: Subject) -> Iterator[Case]:
    """Scores that differ enough to tell one scale from another; with a mask, which is not scaled."""
    for channels in (1, 3, 16):
        s = replace(ALL, heads=2, channels=channels, mask="additive")
        case = attention_case(subject, s, note=f"heads of {channels} channels")
        yield case.having(query=case["query"] * 2)


@covers("MHA-3", cases=head_sizes)
def test_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case)


EXP_OVERFLOWS = {"float64": 800.0, "float32": 200.0, "float16": 200.0, "bfloat16": 120.0}


def large_scores(subject: Subject) -> Iterator[Case]:
    """Scores of one size shifted up and down, by a bias of the keys to which queries are nearly parallel; then scores
    far apart."""
    for sign in (1, -1):
        case = attention_case(subject, ALL, note="large scores")
        weight, bias = (parameters_of(case)[f"in_proj_{kind}"].clone() for kind in ("weight", "bias"))
        embed = ALL.embed
        weight[:embed] /= 4
        bias[:embed] = 2
        bias[embed : 2 * embed] = sign * EXP_OVERFLOWS[subject.dtype] / (2 * math.sqrt(ALL.channels))
        yield with_parameters(case, in_proj_weight=weight, in_proj_bias=bias)
    case = attention_case(subject, ALL, note="scores far apart")
    yield case.having(query=case["query"] * 40)


@covers("MHA-4", cases=large_scores)
def test_softmax_of_large_scores(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-4", cases=lambda subject: [showing_weights(subject, replace(ALL, batch=3, queries=4), "weights")])
def test_weights_of_a_query_sum_to_one_over_the_keys(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def lengths(subject: Subject) -> Iterator[Case]:
    """One, and about as many as blocks of kernels hold."""
    for queries, keys in ((1, 1), (4, 1), (1, 17), (33, 5), (16, 31), (17, 66), (7, 130)):
        s = replace(ALL, queries=queries, keys=keys, heads=2, channels=3, padded=keys in (17, 66))
        yield attention_case(subject, s, note=f"{queries} queries, {keys} keys")


@covers("MHA-5", cases=lengths)
def test_any_lengths(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def permutable(subject: Subject) -> Iterator[Case]:
    yield attention_case(subject, replace(SQUARE, mask="boolean", padded=True), note="as many keys as queries")
    yield attention_case(subject, replace(ALL, mask="additive"), note="other keys than queries")
    yield attention_case(subject, replace(SQUARE, batch=1), note="one image, as many keys as queries")


@covers("MHA-6", cases=permutable)
def test_order_of_keys(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    order = torch.arange(case["key"].shape[1]).roll(2).flip(0)
    axes = {"key": 1, "value": 1, "key_pos": 1, "key_padding_mask": 1, "attn_mask": -1}
    moved = {name: case[name].index_select(axis, order) for name, axis in axes.items() if name in case.tensors}
    subject.compare("output, keys permuted", forward(subject, case.having(**moved)), right.expected, right.limit)


@covers("MHA-6", cases=permutable)
def test_order_of_queries(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    order = torch.arange(case["query"].shape[1]).roll(2).flip(0)
    axes = {"query": 1, "identity": 1, "query_pos": 1, "attn_mask": -2}
    moved = {name: case[name].index_select(axis, order) for name, axis in axes.items() if name in case.tensors}
    expected, limit = right.expected[:, order], right.limit[:, order]
    subject.compare("output, queries permuted", forward(subject, case.having(**moved)), expected, limit)


def without_keys(subject: Subject) -> Iterator[Case]:
    for mask in ("none", "key_padding_mask", "attn_mask"):
        case = attention_case(subject, ALL, note=f"no keys, {mask}")
        masks = {
            "key_padding_mask": torch.zeros(ALL.batch, 0, dtype=torch.bool),
            "attn_mask": torch.zeros(ALL.queries, 0, dtype=torch.bool),
        }
        none = {name: case[name][:, :0] for name in ("key", "value", "key_pos")}
        yield case.having(**none, **{name: tensor for name, tensor in masks.items() if name == mask})


@covers("MHA-7", cases=without_keys)
def test_no_keys(subject: Subject, case: Case) -> None:
    agrees(subject, case)
