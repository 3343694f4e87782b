"""Checks that the suites of `self_attention` and `cross_attention` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.harness.block import expectations, forward, while_training
from detr_conformance.harness.block_case import settings_of, with_parameters
from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.mismatch import expect, expect_share
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.attention.cases.self_attention import AttentionStructure, attention_case, with_projections


def ordinary(subject: Subject) -> list[Case]:
    return [attention_case(subject, AttentionStructure(), note="ordinary")]


def many_heads(subject: Subject) -> Iterator[Case]:
    """More heads than channels, fewer, as many; one head; no pair of sizes is equal throughout."""
    for heads, channels in ((3, 2), (2, 5), (3, 3), (1, 6)):
        yield attention_case(subject, AttentionStructure(heads=heads, channels=channels), note="heads and channels")


def biased(subject: Subject) -> Iterator[Case]:
    """Large biases of query and value, and none at all."""
    s = AttentionStructure()
    case = attention_case(subject, s, note="biased")
    bias = torch.stack((torch.full((s.embed,), 2.0), torch.linspace(-1, 1, s.embed), torch.full((s.embed,), -3.0)))
    yield with_projections(case, "bias", bias)
    yield attention_case(subject, replace(s, qkv_bias=False), note="no bias")


def dropping_weights(subject: Subject) -> Iterator[Case]:
    """All weights are 1/4, all values one, the output projection does nothing: the output counts the kept weights."""
    s = AttentionStructure(batch=32, tokens=4, keys=4, attn_drop=0.5)
    case = attention_case(subject, s, note="weights dropped")
    ones = torch.zeros(3, s.embed)
    ones[2] = 1
    case = with_projections(case, "weight", torch.zeros(3, s.embed, s.embed))
    case = with_projections(case, "bias", ones)
    yield with_parameters(case, proj__weight=torch.eye(s.embed), proj__bias=torch.zeros(s.embed))


def check_dropped_weights(subject: Subject, case: Case) -> None:
    """Each head's channels are all k/2 for k kept weights of four."""
    _in_evaluation(subject, case)
    settings = settings_of(case)
    output = while_training(subject, case).double().unflatten(-1, (settings["num_heads"], -1))
    kept = (output * 2).round()
    _expect_near("output while training", output, kept / 2)
    heads = kept[..., 0]
    expect(
        torch.equal(kept, heads[..., None].expand_as(kept)),
        "the channels of a head were dropped one by one: not the weights but the result was dropped",
        where="output",
    )
    for what, share in (
        ("image", (heads == heads[:1]).double().mean()),
        ("token", (heads == heads[:, :1]).double().mean()),
        ("head", (heads == heads[..., :1]).double().mean()),
    ):
        expect(share.item() < 0.9, f"the same weights were dropped for every {what}", where="output")
    # Kept weights are binomial (4, 1/2); the share of heads without any loss tells dropping one in two from less.
    expect_share("heads of which no weight was dropped", heads == 4, 1 / 16)
    expect_share("heads of which one weight was kept", heads == 1, 4 / 16)


def dropping_output(subject: Subject) -> Iterator[Case]:
    for probability in (0.2, 0.5):
        s = AttentionStructure(batch=8, tokens=6, proj_drop=probability)
        yield attention_case(subject, s, note=f"output dropped by {probability}")


def check_dropped_output(subject: Subject, case: Case) -> None:
    """Channels are zero, or what evaluation gives divided by 1 - p."""
    _in_evaluation(subject, case)
    probability = settings_of(case)["proj_drop"]
    output = while_training(subject, case)
    right = expectations(subject, case, backward=False)["output"]
    dropped = output == 0
    limit = right.limit + torch.finfo(subject.torch_dtype).eps * right.expected.abs()
    subject.compare(
        "kept channels while training",
        output[~dropped],
        right.expected[~dropped] / (1 - probability),
        1.01 * limit[~dropped] / (1 - probability),
    )
    expect_share("dropped channels", dropped, probability)
    for axis, what in enumerate(("images", "tokens", "channels")):
        alike = (dropped == dropped.select(axis, 0).unsqueeze(axis)).double().mean().item()
        expect(alike < 0.9, f"all {what} lost the same elements", where="output")


def in_every_layout(subject: Subject) -> Iterator[Case]:
    for layout in LAYOUTS:
        s = AttentionStructure(qkv_bias=layout != "offset")
        yield attention_case(subject, s, note="gradients").laid_out(layout)


def _in_evaluation(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    subject.compare("output in evaluation", forward(subject, case), right.expected, right.limit)


def _expect_near(name: str, got: Tensor, expected: Tensor) -> None:
    worst = (got - expected).abs().max().item()
    expect(worst < 0.02, f"{name} is no multiple of 1/2: off by {worst:.3f}", where="output")
