"""Multi-head attention: positions, defaults, identity, dropout. Clauses: MHA-18 to MHA-23."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.harness.block import agrees, expectations, while_training
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect, expect_share
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.attention.cases.multihead_attention import (
    ALL,
    ITSELF,
    SQUARE,
    Attention,
    attention_case,
    showing_weights,
)

OPERATION = "multihead_attention"


def large_positions(subject: Subject) -> Iterator[Case]:
    for s in (ALL, SQUARE, ITSELF, replace(ALL, given=("query", "key", "query_pos", "key_pos"))):
        case = attention_case(subject, s, note="large positions")
        yield case.having(**{name: case[name] * 2 for name in ("query_pos", "key_pos") if name in case.tensors})


@covers("MHA-18", cases=large_positions)
def test_positions(subject: Subject, case: Case) -> None:
    agrees(subject, case)


DEFAULTS = (
    ("query",),
    ("query", "query_pos"),
    ("query", "key", "query_pos", "key_pos"),
    ("query", "key", "value", "query_pos", "key_pos"),
    ("query", "value", "query_pos"),
    ("query", "identity", "query_pos"),
    ("query", "key", "identity", "query_pos", "key_pos"),
)


def with_defaults(subject: Subject) -> Iterator[Case]:
    for given in DEFAULTS:
        yield attention_case(subject, replace(ALL, given=given), note="defaults")
    given = ("query", "key", "query_pos", "key_pos")
    yield attention_case(subject, replace(SQUARE, given=given), note="defaults, as many keys as queries")


@covers("MHA-19", cases=with_defaults)
def test_defaults(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def key_positions(subject: Subject) -> Iterator[Case]:
    contents = ("query", "key", "value")
    for s, given in (
        (SQUARE, (*contents, "query_pos")),
        (ALL, (*contents, "query_pos")),
        (replace(ALL, keys=1), (*contents, "query_pos")),
        (SQUARE, (*contents, "key_pos")),
        (SQUARE, (*contents, "query_pos", "key_pos")),
        (ALL, ("query", "query_pos")),
        (ALL, ("query", "query_pos", "key_pos")),
        (ALL, ("query", "key_pos")),
    ):
        yield attention_case(subject, replace(s, given=given), note=f"{' '.join(given)}; {s.length('key')} keys")


@covers("MHA-20", cases=key_positions)
def test_default_of_the_keys_position(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-21", cases=lambda subject: [attention_case(subject, s, note="identity") for s in (ALL, SQUARE)])
def test_identity(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(identity=case["identity"] * 10))
    agrees(subject, case.having(identity=torch.zeros_like(case["identity"])))


def check_dropped(dropped: Tensor, probability: float, axes: tuple[str, ...]) -> None:
    """The share of what was dropped, and that neighbours along each axis are dropped independently."""
    expect_share("dropped elements", dropped, probability, sigmas=8)
    for axis, name in enumerate(axes):
        alike = dropped == dropped.roll(1, axis)
        share = probability**2 + (1 - probability) ** 2
        expect_share(f"neighbours along {name} that share their fate", alike, share, sigmas=8)


def check_kept(subject: Subject, case: Case, output: Tensor, probability: float) -> Tensor:
    """Elements that are not zero are the right ones divided by 1 - p; returns which are zero."""
    right = expectations(subject, case, backward=False)["output"]
    dropped, scale = output == 0, 1 / (1 - probability)
    slack = scale * (1.01 * right.limit + (output.element_size() == 2) * 2**-7 * right.expected.abs())
    subject.compare("kept elements while training", output[~dropped], scale * right.expected[~dropped], slack[~dropped])
    return dropped


def dropping_weights(subject: Subject) -> Iterator[Case]:
    for probability in (0.1, 0.5):
        s = Attention(queries=100, keys=6, heads=2, attn_drop=probability)
        yield showing_weights(subject, s, f"a share {probability} of the weights dropped")


@covers("MHA-22", cases=dropping_weights)
def test_dropout_of_weights(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    probability = settings_of(case)["attn_drop"]
    dropped = check_kept(subject, case, while_training(subject, case), probability)
    check_dropped(dropped.unflatten(-1, (2, 6)), probability, ("image", "query", "head", "key"))


def dropping_results(subject: Subject) -> Iterator[Case]:
    for probability in (0.1, 0.5):
        s = Attention(queries=60, keys=5, heads=2, channels=6, proj_drop=probability)
        yield attention_case(subject, s, note=f"a share {probability} of the result dropped")


@covers("MHA-23", cases=dropping_results)
def test_dropout_of_the_result(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    probability = settings_of(case)["proj_drop"]
    bare = case.having(identity=torch.zeros_like(case["identity"]))
    dropped = check_kept(subject, bare, while_training(subject, bare), probability)
    check_dropped(dropped, probability, ("image", "query", "channel"))
    framed = while_training(subject, case)
    alone = (framed == case["identity"]).double().mean().item()
    expect(
        abs(alone - probability) < 8 * math.sqrt(probability * (1 - probability) / framed.numel()) + 0.01,
        f"identity alone came back for {alone:.3f} of the elements, expected {probability}: identity was dropped too",
        where="output",
    )
