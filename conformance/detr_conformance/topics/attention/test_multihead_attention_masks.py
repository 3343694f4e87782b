"""Multi-head attention: what the two masks mean, and what forbidding a key amounts to. Clauses: MHA-8 to MHA-17."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.attention.cases.multihead_attention import (
    ALL,
    ITSELF,
    SQUARE,
    attention_case,
    forbidden_pairs,
    projected,
)

OPERATION = "multihead_attention"


def with_mask(subject: Subject, mask: str, padded: bool = False) -> Iterator[Case]:
    """With as many keys as queries too, where the axes of a mask can be exchanged, in self-attention, and for more
    heads than images and fewer."""
    sizes = [ALL, replace(ALL, batch=3, heads=2), replace(SQUARE, batch=2, heads=2), ITSELF]
    for s in sizes:
        yield attention_case(subject, replace(s, mask=mask, padded=padded), note=f"{mask} mask")


def all_false(subject: Subject, case: Case, mask: str) -> None:
    """A mask that forbids nothing is no mask."""
    nothing = case.having(**{mask: torch.zeros_like(case[mask])})
    right = expectations(subject, case.having(**{mask: None}), backward=False)["output"]
    subject.compare("output", forward(subject, nothing), right.expected, right.limit)


@covers("MHA-8", cases=lambda subject: with_mask(subject, "boolean"))
def test_boolean_mask(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-8", cases=lambda subject: list(with_mask(subject, "boolean"))[-2:])
def test_a_mask_that_is_false_is_no_mask(subject: Subject, case: Case) -> None:
    all_false(subject, case, "attn_mask")


@covers("MHA-9", cases=lambda subject: with_mask(subject, "boolean by head"))
def test_mask_for_each_head(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def additive(subject: Subject) -> Iterator[Case]:
    for mask in ("additive", "additive by head"):
        case = attention_case(subject, replace(ALL, mask=mask), note=mask)
        yield case
        yield case.having(attn_mask=case["attn_mask"].clamp(min=-3))


@covers("MHA-10", cases=additive)
def test_additive_mask(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def with_padding(subject: Subject) -> Iterator[Case]:
    yield from with_mask(subject, "none", padded=True)
    case = attention_case(subject, replace(ALL, batch=3), note="padding at the end")
    short = torch.arange(ALL.keys).expand(3, ALL.keys) >= torch.tensor([[6], [2], [7]])
    yield case.having(key_padding_mask=short)


@covers("MHA-11", cases=with_padding)
def test_padded_keys(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-11", cases=lambda subject: list(with_padding(subject))[-2:])
def test_padding_that_is_false_is_no_padding(subject: Subject, case: Case) -> None:
    all_false(subject, case, "key_padding_mask")


def both_masks(subject: Subject) -> Iterator[Case]:
    for mask in ("boolean", "boolean by head", "additive", "additive by head"):
        s = replace(ALL if mask.startswith("boolean") else SQUARE, mask=mask, padded=True)
        yield attention_case(subject, s, note=f"padding and {mask} mask")


@covers("MHA-12", cases=both_masks)
def test_both_masks(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def forbidden_keys(case: Case) -> Tensor:
    """(B, K) bool: keys that no query of the image may attend to in any head."""
    return forbidden_pairs(case).all((1, 2))


def columns_forbidden(subject: Subject) -> Iterator[Case]:
    """The same keys, forbidden to everybody by each kind of mask."""
    yield attention_case(subject, replace(ALL, padded=True), note="padded keys")
    column = torch.arange(ALL.keys) % 3 == 1
    for mask in ("boolean", "boolean by head", "additive"):
        case = attention_case(subject, replace(ALL, mask=mask, padded=mask == "additive"), note=f"{mask}, keys 1 and 4")
        filler = True if case["attn_mask"].dtype == torch.bool else -torch.inf
        yield case.having(attn_mask=case["attn_mask"].masked_fill(column, filler))


def tempting(subject: Subject) -> Iterator[Case]:
    """Forbidden keys with scores far above all others, and with large values."""
    score, value = (1.5e4, 1e3) if subject.dtype == "float16" else (1e12, 1e12)
    for case in columns_forbidden(subject):
        bare = case.having(query_pos=None, key_pos=torch.zeros_like(case["key"]))
        forbidden = forbidden_keys(bare)[..., None]
        scores = projected(bare, 0, "query") @ projected(bare, 1, "key").transpose(1, 2)
        factor = score / scores.abs().max()
        dtype = bare["key"].dtype
        yield bare.having(
            key=torch.where(forbidden, bare["key"].double() * factor, bare["key"].double()).to(dtype),
            value=torch.where(forbidden, bare["value"].double() * value, bare["value"].double()).to(dtype),
        )


@covers("MHA-13", cases=tempting)
def test_forbidden_is_zero(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def nothing_allowed(subject: Subject) -> Iterator[Case]:
    """Calls with queries to which every key is forbidden, in all heads or in one, by each kind of mask."""
    case = attention_case(subject, replace(ALL, mask="boolean by head"), note="a query of one image")
    mask = case["attn_mask"].clone()
    mask[ALL.heads :, 2] = True
    yield case.having(attn_mask=mask)

    case = attention_case(subject, replace(ALL, mask="boolean by head"), note="a query of one head")
    mask = case["attn_mask"].clone()
    mask[1, 3] = True
    yield case.having(attn_mask=mask)

    case = attention_case(subject, replace(ALL, padded=True), note="an image of padding")
    mask = case["key_padding_mask"].clone()
    mask[0] = True
    yield case.having(key_padding_mask=mask)

    case = attention_case(subject, replace(ITSELF, given=("query",), padded=True), note="an image of padding, itself")
    mask = case["key_padding_mask"].clone()
    mask[1] = True
    yield case.having(key_padding_mask=mask)

    case = attention_case(subject, replace(ALL, mask="additive"), note="-inf for one query")
    mask = case["attn_mask"].clone()
    mask[4] = -torch.inf
    yield case.having(attn_mask=mask)

    case = attention_case(subject, replace(ALL, mask="boolean", padded=True), note="both masks together")
    mask = case["attn_mask"].clone()
    mask[0] = ~case["key_padding_mask"][1]
    yield case.having(attn_mask=mask)


def without_keys_in_some_head(case: Case) -> Tensor:
    """(B, Q) bool."""
    dead = forbidden_pairs(case).all(-1).any(1)
    require(dead.any() and not dead.all(), "some queries may attend to nothing, others to something")
    return dead


@covers("MHA-14", cases=nothing_allowed)
def test_a_query_without_keys_disturbs_nobody(subject: Subject, case: Case) -> None:
    alive = ~without_keys_in_some_head(case)
    right = expectations(subject, case, backward=subject.backward)["output"]
    output = forward(subject, case)
    subject.compare("output of the other queries", output.cpu()[alive], right.expected[alive], right.limit[alive])


@covers("MHA-15", cases=nothing_allowed)
def test_a_query_without_keys_gets_nothing(subject: Subject, case: Case) -> None:
    if subject.backward:
        gradients_agree(subject, case)
    right = expectations(subject, case, backward=subject.backward)["output"]
    subject.compare("output", forward(subject, case), right.expected, right.limit)
    with torch.no_grad():  # where some take another path
        subject.compare("output without gradients", forward(subject, case), right.expected, right.limit)


@covers("MHA-16", cases=columns_forbidden, feature="backward", plain=agrees)
def test_no_gradient_where_attention_is_forbidden(subject: Subject, case: Case) -> None:
    forbidden = forbidden_keys(case)
    require(forbidden.any() and not forbidden.all(), "some keys are forbidden to all queries, some are not")
    gradients = run(subject, case).gradients
    for name in ("key", "value", "key_pos"):
        gradient = subject.gradient(name, gradients).cpu()
        subject.compare_exactly(
            f"grad_{name} of forbidden keys", gradient[forbidden], torch.zeros_like(gradient[forbidden])
        )
        reached = gradient[~forbidden].any(-1)
        expect(bool(reached.all()), f"{int((~reached).sum())} allowed keys got no gradient", where=f"grad_{name}")


@covers("MHA-17", cases=with_padding)
def test_padding_may_hold_anything(subject: Subject, case: Case) -> None:
    if "key" not in case.tensors:
        case = case.having(key=case["query"].clone(), key_pos=case["query_pos"].clone())
    right = expectations(subject, case, backward=False)["output"]
    padded = case["key_padding_mask"][..., None]
    for poison in (torch.nan, torch.inf):
        spoilt = {name: case[name].masked_fill(padded, poison) for name in ("key", "value") if name in case.tensors}
        subject.compare("output", forward(subject, case.having(**spoilt)), right.expected, right.limit)
    spoilt_position = case.having(key_pos=case["key_pos"].masked_fill(padded, torch.nan))
    subject.compare("output", forward(subject, spoilt_position), right.expected, right.limit)
