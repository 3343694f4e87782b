"""Cross-attention, the three thirds of self-attention's projection being three layers. Clauses: spec chapter 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, raises
from detr_conformance.harness.block_case import config_of, parameters_of, with_parameters
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
from detr_reference.attention.config import SelfAttentionConfig
from detr_reference.attention.self_attention import build as build_self_attention

OPERATION = "cross_attention"


# -- what it shares with self-attention -----------------------------------------------------------------------


@covers("SA-2", "SA-3", "SA-6", cases=many_heads)
def test_heads_and_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-4", "SA-7", cases=ordinary)
def test_softmax_and_output_projection(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-5", cases=lambda subject: [one_winner(subject)])
def test_logits_of_any_size(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-8", cases=biased)
def test_bias(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-9", cases=ordinary)
def test_nothing_is_added(subject: Subject, case: Case) -> None:
    """With `proj` at zero its bias is all that is left."""
    weight = case["parameter:proj.weight"]
    agrees(subject, with_parameters(case, proj__weight=torch.zeros_like(weight)))


def of_every_length(subject: Subject) -> Iterator[Case]:
    for tokens, keys in ((1, 4), (3, 1), (6, 6), (4, 67)):
        s = AttentionStructure(tokens=tokens, keys=keys)
        yield attention_case(subject, s, note=f"{tokens} queries, {keys} keys")


@covers("SA-10", cases=of_every_length)
def test_every_token_in_no_order(subject: Subject, case: Case) -> None:
    """The order of the keys does not matter; reversed queries give the reversed output."""
    right = expectations(subject, case, backward=False)["output"]
    backwards = case.having(**{name: case[name].flip(1) for name in ("query", "key", "value")})
    subject.compare("output", forward(subject, case), right.expected, right.limit)
    subject.compare(
        "output of reversed tokens", forward(subject, backwards), right.expected.flip(1), right.limit.flip(1)
    )


@covers("SA-11", cases=dropping_weights)
def test_dropout_of_the_weights(subject: Subject, case: Case) -> None:
    check_dropped_weights(subject, case)


@covers("SA-12", cases=dropping_output)
def test_dropout_of_the_output(subject: Subject, case: Case) -> None:
    check_dropped_output(subject, case)


@covers("SA-13", cases=drawn_attentions, share=0.25)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers("SA-14", cases=in_every_layout, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


# -- what is its own ------------------------------------------------------------------------------------------


@covers("SA-15", cases=ordinary)
def test_three_layers(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-16", cases=lambda subject: [one for s in (True, False) for one in attending_to_itself(subject, s)])
def test_the_thirds_of_qkv(subject: Subject, case: Case) -> None:
    """What self-attention gives whose qkv holds the rows of q, k and v, computed by the reference in float64."""
    parameters = {name: tensor.double() for name, tensor in parameters_of(case).items()}
    parts = ("weight", "bias") if "q.bias" in parameters else ("weight",)
    state = {f"qkv.{part}": torch.cat([parameters[f"{name}.{part}"] for name in "qkv"]) for part in parts}
    state |= {name: tensor for name, tensor in parameters.items() if name.startswith("proj.")}
    sizes = config_of(OPERATION, case)
    config = SelfAttentionConfig(sizes.embed_dim, sizes.num_heads, sizes.qkv_bias)
    with torch.no_grad():
        expected = build_self_attention(config, state).eval()(case["query"].double())
    subject.compare(
        "output", forward(subject, case), expected, expectations(subject, case, backward=False)["output"].limit
    )


def attending_to_itself(subject: Subject, qkv_bias: bool) -> Iterator[Case]:
    for heads, channels in ((3, 4), (2, 3)):
        s = AttentionStructure(tokens=5, keys=5, heads=heads, channels=channels, qkv_bias=qkv_bias)
        case = attention_case(subject, s, note="one tensor three times")
        yield case.having(key=case["query"], value=case["query"])


@covers("SA-17", cases=of_every_length)
def test_two_lengths(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("SA-18", cases=ordinary)
def test_linear_in_what_is_answered(subject: Subject, case: Case) -> None:
    """Neither a large nor an almost constant value changes the weights."""
    agrees(subject, case.having(value=10 * case["value"] + 4))
    agrees(subject, case.having(value=case["value"] / 16 - 2))


@covers(
    "SA-19",
    cases=lambda subject: [attention_case(subject, replace(AttentionStructure(), keys=5), note="misfits")],
    once=True,
)
def test_arguments_that_do_not_fit(subject: Subject, case: Case) -> None:
    key, value, query = (case[name] for name in ("key", "value", "query"))
    raises(subject, case.having(value=value[:, :-1]), "value is shorter than key")
    raises(subject, case.having(value=value[:, :1]), "value has one entry for all keys")
    raises(subject, case.having(value=torch.cat((value, value), 1)), "value is longer than key")
    raises(subject, case.having(key=key[:1], value=value[:1]), "key and value hold one image, query two")
    raises(subject, case.having(value=value[:1]), "value holds one image, key two")
    raises(subject, case.having(query=query[:1]), "query holds one image, key two")
    raises(subject, case.having(query=query[..., :-1]), "query lacks a channel")
