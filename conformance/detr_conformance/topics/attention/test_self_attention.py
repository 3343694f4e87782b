"""Self-attention as Vision Transformers write it. Clauses: spec chapter 5."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, raises
from detr_conformance.harness.block_case import with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.attention.cases.self_attention import (
    AttentionStructure,
    attention_case,
    drawn_attentions,
    one_winner,
)
from detr_conformance.topics.attention.checks import (
    biased,
    check_dropped_output,
    check_dropped_weights,
    dropping_output,
    dropping_weights,
    in_every_layout,
    many_heads,
    ordinary,
)

OPERATION = "self_attention"


# -- who asks, who answers ------------------------------------------------------------------------------------


@covers("SA-1", cases=ordinary)
def test_query_key_value(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-2", cases=many_heads)
def test_heads_of_the_projection(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-3", cases=many_heads)
def test_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-4", cases=ordinary)
def test_softmax_over_the_keys(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-5", cases=lambda subject: [one_winner(subject)])
def test_logits_of_any_size(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- what is answered -----------------------------------------------------------------------------------------


@covers("SA-6", cases=many_heads)
def test_heads_side_by_side(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-7", cases=ordinary)
def test_output_projection(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-8", cases=biased)
def test_bias(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-9", cases=ordinary)
def test_nothing_is_added(subject: Subject, case: Case) -> None:
    """With `proj` at zero its bias is all that is left."""
    weight = case["parameter:proj.weight"]
    agrees(subject, with_parameters(case, proj__weight=torch.zeros_like(weight)))
    agrees(subject, case)


def of_every_length(subject: Subject) -> Iterator[Case]:
    for tokens in (1, 2, 6, 67):
        yield attention_case(subject, AttentionStructure(tokens=tokens), note=f"{tokens} tokens")


@covers("SA-10", cases=of_every_length)
def test_every_token_in_no_order(subject: Subject, case: Case) -> None:
    """Reversed tokens give the reversed output."""
    right = expectations(subject, case, backward=False)["output"]
    subject.compare("output", forward(subject, case), right.expected, right.limit)
    reversed_output = forward(subject, case.having(x=case["x"].flip(1)))
    subject.compare("output of reversed tokens", reversed_output, right.expected.flip(1), right.limit.flip(1))


# -- dropout --------------------------------------------------------------------------------------------------


@covers("SA-11", cases=dropping_weights)
def test_dropout_of_the_weights(subject: Subject, case: Case) -> None:
    check_dropped_weights(subject, case)


@covers("SA-12", cases=dropping_output)
def test_dropout_of_the_output(subject: Subject, case: Case) -> None:
    check_dropped_output(subject, case)


# -- numbers --------------------------------------------------------------------------------------------------


@covers("SA-13", cases=drawn_attentions, share=0.25)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def at_scale(subject: Subject) -> list[Case]:
    return [attention_case(subject, AttentionStructure(tokens=50, heads=4, channels=32), note="at scale")]


@covers("SA-13", cases=at_scale)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers("SA-14", cases=in_every_layout, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


# -- arguments ------------------------------------------------------------------------------------------------


@covers("SA-19", cases=ordinary, once=True)
def test_arguments_that_do_not_fit(subject: Subject, case: Case) -> None:
    channels = case["x"].shape[-1]
    raises(subject, case.having(x=case["x"][..., : channels // 2]), f"x lacks half of its {channels} channels")
    wider = torch.cat((case["x"], case["x"]), -1)
    raises(subject, case.having(x=wider), f"x has twice its {channels} channels")
