"""The MLP. Clauses: spec chapter 6."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.feed_forward.cases import drawn_perceptrons, linear_names, network_case

OPERATION = "mlp"


def several_layers(subject: Subject) -> Iterator[Case]:
    for number in (2, 3, 4):
        yield network_case(subject, note=f"{number} layers", num_layers=number)


@covers("FFN-14", cases=several_layers, once=True)
def test_layers(subject: Subject, case: Case) -> None:
    """Every bias large enough to be missed."""
    biases = {name: 2 + parameters_of(case)[name.replace("__", ".")].abs() for name in linear_names(case, "bias")}
    agrees(subject, with_parameters(case, **biases))


@covers("FFN-15", cases=several_layers)
def test_relu_between_the_layers(subject: Subject, case: Case) -> None:
    """Hidden channels on both sides of the kink, and far from it; outputs of both signs."""
    agrees(subject, case)
    agrees(subject, case.having(x=case["x"] * 8))


@covers("FFN-15", cases=several_layers)
def test_no_relu_at_the_end(subject: Subject, case: Case) -> None:
    *_, last = linear_names(case, "bias")
    agrees(subject, with_parameters(case, **{last: -3 - parameters_of(case)[last.replace("__", ".")].abs()}))


def one_layer(subject: Subject) -> Iterator[Case]:
    yield network_case(subject, note="one layer", num_layers=1)
    yield network_case(subject, note="one square layer", num_layers=1, output_dim=6)


@covers("FFN-16", cases=one_layer, once=True)
def test_one_layer(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def square(subject: Subject) -> Iterator[Case]:
    """Widths that would let something be added."""
    yield network_case(subject, note="output as wide as input", output_dim=6)
    yield network_case(subject, note="all widths equal", hidden_dim=6, output_dim=6, num_layers=4)
    yield network_case(subject, note="hidden layers of equal width", num_layers=4)


@covers("FFN-17", cases=square, once=True)
def test_nothing_is_added(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(x=case["x"] * 3))


def of_all_shapes(subject: Subject) -> Iterator[Case]:
    for leading in ((), (4,), (2, 3, 4), (2, 2, 1, 3)):
        yield network_case(subject, note=f"leading axes {leading}", leading=leading)


@covers("FFN-18", cases=of_all_shapes)
def test_any_leading_axes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FFN-18", cases=lambda subject: [network_case(subject, note="non-finite neighbours")])
def test_token_by_token(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    for poison in (torch.nan, torch.inf, 100.0):
        x = case["x"].clone()
        x[0, 1] = poison
        others = torch.ones(x.shape[:2], dtype=torch.bool)
        others[0, 1] = False
        output = forward(subject, case.having(x=x)).cpu()[others]
        subject.compare("output at the other tokens", output, right.expected[others], right.limit[others])


@covers("FFN-19", cases=drawn_perceptrons, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers(
    "FFN-19",
    cases=lambda subject: [
        network_case(subject, note="wide", input_dim=192, hidden_dim=160, output_dim=4, leading=(1, 4))
    ],
)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def away_from_kinks(subject: Subject) -> Iterator[Case]:
    for seed, number in enumerate((1, 2, 3)):
        case = network_case(subject, seed, note=f"{number} layers, away from kinks", num_layers=number, smooth=True)
        yield case.laid_out(LAYOUTS[seed])


@covers("FFN-20", cases=away_from_kinks, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)
