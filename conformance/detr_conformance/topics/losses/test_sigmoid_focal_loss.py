"""The focal loss (chapter 14, FOC-1 to FOC-12)."""

from __future__ import annotations

import torch

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, raises, run
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Raised, expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.losses.cases import focal_loss as cases
from detr_conformance.topics.losses.checks.overlap import accurate

OPERATION = "sigmoid_focal_loss"


@covers("FOC-1", cases=lambda s: [*cases.ordinary(s), *cases.many_tokens(s)])
def test_independent_classes(subject: Subject, case: Case) -> None:
    require(not case["targets"].any(-1).all() and case["targets"].any(), "tokens with and without a class")
    agrees(subject, case)


@covers("FOC-1", cases=cases.drawn_tokens)
def test_drawn_tokens(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FOC-2", cases=cases.weights)
def test_weights(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FOC-3", cases=cases.exponents)
def test_modulating_factor(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FOC-4", cases=cases.normalisers)
def test_normaliser(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FOC-5", cases=cases.any_shape)
def test_any_shape(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FOC-6", cases=cases.large)
def test_large_logits(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FOC-7", cases=lambda s: [*cases.few_tokens(s), *cases.ordinary(s), *cases.many_tokens(s)])
def test_accuracy(subject: Subject, case: Case) -> None:
    accurate(subject, case, backward=subject.backward)


@covers(
    "FOC-8",
    cases=lambda s: [*cases.ordinary(s), *cases.weights(s), *cases.exponents(s)],
    feature="backward",
    plain=agrees,
)
def test_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("FOC-8", cases=cases.at_zero, feature="backward", plain=agrees)
def test_gradients_at_zero(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("FOC-9", cases=cases.saturated, feature="backward")
def test_finite_gradients(subject: Subject, case: Case) -> None:
    """The derivative has a term gamma p log p, where an error of p is multiplied by up to the logit."""
    right = expectations(subject, case)["logits"]
    gradient = subject.gradient("logits", run(subject, case).gradients)
    unit = max(torch.finfo(torch.float32).eps, torch.finfo(subject.torch_dtype).eps) / 2
    steepness = 1 + settings_of(case)["gamma"] * case["logits"].double().abs()
    share = case["grad_output"].double().abs() / case["num_boxes"].double()
    subject.compare("grad_logits", gradient, right.expected, right.limit + 8 * unit * steepness * share)


@covers("FOC-10", cases=lambda s: [next(iter(cases.ordinary(s)))], once=True)
def test_equal_shapes(subject: Subject, case: Case) -> None:
    targets = case["targets"]
    for wrong in (targets[..., :1], targets[:1], targets[0], torch.cat((targets, targets[..., :1]), -1)):
        raises(subject, case.having(targets=wrong), f"targets are {tuple(wrong.shape)}")


@covers("FOC-11", cases=cases.easy)
def test_easy_examples(subject: Subject, case: Case) -> None:
    accurate(subject, case)


@covers("FOC-12", cases=lambda s: [next(iter(cases.ordinary(s)))])
def test_not_a_number(subject: Subject, case: Case) -> None:
    for positive in (True, False):
        logits = case["logits"].clone()
        logits[tuple((case["targets"].bool() == positive).nonzero()[0])] = torch.nan
        try:
            output = forward(subject, case.having(logits=logits))
        except Raised:
            continue
        expect(
            bool(output.isnan()),
            f"the loss is {float(output):g}, although a logit of a {'positive' if positive else 'negative'} is NaN",
            where="output",
            expected="nan, or an error",
            got=f"{float(output):g}",
        )
