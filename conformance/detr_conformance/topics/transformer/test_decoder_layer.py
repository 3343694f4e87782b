"""What only a decoder layer has: the key. Clauses: spec chapter 7."""

from __future__ import annotations

from collections.abc import Iterator

from detr_conformance.harness.block import agrees
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.transformer import cases

OPERATION = "decoder_layer"


def key_positions_left_out(subject: Subject) -> Iterator[Case]:
    """As many keys as queries."""
    yield cases.layer_case(subject, cases.standard(subject), positions=True, queries=6, keys=6).having(key_pos=None)


def key_far_from_normal(subject: Subject) -> Iterator[Case]:
    """Keys that every norm would change, and two cross-attentions to the same."""
    orders = cases.and_free_orders(subject, "norm cross norm ffn", "norm self norm cross norm cross", "cross ffn cross")
    for order in orders:
        case = cases.layer_case(subject, order)
        yield case.having(key=case["key"] * 2 + 1)


@covers("TL-10", cases=cases.with_positions, once=True)
def test_positions_in_cross_attention(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-13", cases=key_positions_left_out, once=True)
def test_key_positions_by_default(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-16", cases=cases.with_key_padding)
def test_padding_of_the_key(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-18", cases=cases.with_key_mask)
def test_mask_of_cross_attention(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-19", cases=key_far_from_normal, once=True)
def test_the_key_stays_as_it_is(subject: Subject, case: Case) -> None:
    agrees(subject, case)
