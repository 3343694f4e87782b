"""The feed-forward network. Clauses: spec chapter 6."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, while_training
from detr_conformance.harness.block_case import parameters_of, settings_of, with_parameters
from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.dropping import Outcome, is_one_of
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.feed_forward.cases import drawn_networks, layer_numbers, linear_names, network_case

OPERATION = "feed_forward"


def several_layers(subject: Subject) -> Iterator[Case]:
    for number in layer_numbers(subject, 2, 3, 4):
        yield network_case(subject, note=f"{number} layers", num_fcs=number)


@covers("FFN-1", cases=several_layers, once=True)
def test_linear_layers(subject: Subject, case: Case) -> None:
    """Every bias large enough to be missed."""
    biases = {name: 2 + parameters_of(case)[name.replace("__", ".")].abs() for name in linear_names(case, "bias")}
    agrees(subject, with_parameters(case, **biases))


@covers("FFN-2", cases=several_layers)
def test_relu(subject: Subject, case: Case) -> None:
    """Hidden channels on both sides of the kink, near and far."""
    agrees(subject, case)
    agrees(subject, case.having(x=case["x"] * 8))


def with_gelu(subject: Subject) -> Iterator[Case]:
    for number in layer_numbers(subject, 2, 3):
        yield network_case(subject, note=f"GELU, {number} layers", num_fcs=number, activation="gelu")


@covers("FFN-3", cases=with_gelu)
def test_exact_gelu(subject: Subject, case: Case) -> None:
    """Where GELU bends, and far out, where it is 0 or x."""
    agrees(subject, case)
    agrees(subject, case.having(x=case["x"] * 8))


def both_activations(subject: Subject) -> Iterator[Case]:
    for activation in ("relu", "gelu"):
        yield network_case(subject, note=f"{activation}, below zero", activation=activation)


@covers("FFN-4", cases=both_activations)
def test_no_activation_at_the_end(subject: Subject, case: Case) -> None:
    *_, last = linear_names(case, "bias")
    below = -3 - parameters_of(case)[last.replace("__", ".")].abs()
    agrees(subject, with_parameters(case, **{last: below}))


@covers("FFN-5", cases=several_layers, once=True)
def test_identity(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(identity=case["identity"] * 10))


@covers("FFN-6", cases=several_layers, once=True)
def test_the_default_identity_is_x(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(identity=None, x=case["x"] * 3))


@covers("FFN-7", cases=several_layers, once=True)
def test_the_identity_is_independent_of_x(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(x=case["x"] * 3))
    agrees(subject, case.having(identity=torch.zeros_like(case["identity"])))


def bare(subject: Subject) -> Iterator[Case]:
    yield network_case(subject, note="no identity", add_identity=False).having(identity=None)
    yield network_case(subject, note="an identity to be ignored", add_identity=False)


@covers("FFN-8", cases=bare, once=True)
def test_no_identity_on_request(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("FFN-9", cases=both_activations)
def test_token_by_token(subject: Subject, case: Case) -> None:
    """Neither a NaN nor a large number in one token of x or identity changes another token."""
    right = expectations(subject, case, backward=False)["output"]
    others = torch.ones(case["x"].shape[:2], dtype=torch.bool)
    others[0, 1] = False
    for poison in (torch.nan, torch.inf, 100.0):
        poisoned = {name: case[name].clone() for name in ("x", "identity")}
        for tensor in poisoned.values():
            tensor[0, 1] = poison
        output = forward(subject, case.having(**poisoned)).cpu()[others]
        subject.compare("output at the other tokens", output, right.expected[others], right.limit[others])


def of_all_shapes(subject: Subject) -> Iterator[Case]:
    for leading in ((), (4,), (2, 3, 4), (2, 2, 1, 3)):
        yield network_case(subject, note=f"leading axes {leading}", leading=leading)


@covers("FFN-10", cases=of_all_shapes, once=True)
def test_any_leading_axes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- dropout --------------------------------------------------------------------------------------------------


def dropping(subject: Subject) -> Iterator[Case]:
    """Networks whose hidden channels do not depend on x: every output is one of a few known numbers."""
    most = layer_numbers(subject, 2, 3)[-1]
    for probability, number, activation in ((0.1, 2, "relu"), (0.4, 2, "gelu"), (0.4, most, "relu")):
        case = network_case(
            subject, note=f"dropout {probability}", leading=(3, 60), num_fcs=number, ffn_drop=probability,
            activation=activation,
        )  # fmt: skip
        first, *others = linear_names(case)
        biases = {name: 1 + parameters_of(case)[name.replace("__", ".")].abs() for name in linear_names(case, "bias")}
        straight = {name: _eye(parameters_of(case)[name.replace("__", ".")]) for name in others}
        nothing = torch.zeros_like(parameters_of(case)[first.replace("__", ".")])
        yield with_parameters(case, **{first: nothing}, **straight, **biases)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(*like.shape)


@covers("FFN-11", cases=dropping, once=True)
def test_dropout(subject: Subject, case: Case) -> None:
    """An output of n layers has met n dropouts in a row: dropped by the last, by the one before, ..., or by none."""
    agrees(subject, case)
    probability = settings_of(case)["ffn_drop"]
    output = while_training(subject, case).double()
    dropped, *_ = is_one_of(output, _outcomes(subject, case, probability))
    whole, channels = dropped.all(-1).double().mean().item(), output.shape[-1]
    expect(
        whole <= probability**channels + 0.05,
        f"{whole:.3f} of the tokens were dropped as a whole, expected {probability**channels:.3f}",
        where="output",
    )


def _outcomes(subject: Subject, case: Case, probability: float) -> list[Outcome]:
    """First the results dropped by the last dropout, last those that met none; the identity is added to all."""
    act = torch.nn.functional.gelu if settings_of(case)["activation"] == "gelu" else torch.relu
    width, identity = case["x"].shape[-1], case["identity"].double()
    *hidden, last = [
        parameters_of(case)[name.replace("__", ".")].double()[:width] for name in linear_names(case, "bias")
    ]
    values, shares = [torch.zeros_like(last)], [probability]
    for kept in range(len(hidden) + 1):  # how many hidden layers, counted from the end, were not dropped
        h = torch.zeros_like(last)
        for bias in hidden[len(hidden) - kept :]:
            h = act(h + bias) / (1 - probability)
        values.append((h + last) / (1 - probability))
        shares.append((1 - probability) ** (kept + 1) * (probability if kept < len(hidden) else 1))
    unit = torch.finfo(torch.float32 if subject.dtype == "float64" else subject.torch_dtype).eps
    names = ["dropped at the end", *(f"kept through {n} hidden layers" for n in range(len(hidden) + 1))]
    return [
        Outcome(name, identity + value, 4 * len(names) * unit * (identity.abs() + value.abs()) + unit, share)
        for name, value, share in zip(names, values, shares, strict=True)
    ]


# -- numbers --------------------------------------------------------------------------------------------------


@covers("FFN-12", cases=drawn_networks, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers(
    "FFN-12",
    cases=lambda subject: [network_case(subject, note="wide", embed_dim=96, feedforward_dim=384, leading=(1, 4))],
)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def away_from_kinks(subject: Subject) -> Iterator[Case]:
    numbers = layer_numbers(subject, 2, 3)
    for seed, (number, activation) in enumerate(product(numbers, ("relu", "gelu"))):
        yield network_case(
            subject, seed, note=f"{activation}, away from kinks", num_fcs=number, activation=activation, smooth=True
        ).laid_out(LAYOUTS[seed])
    yield network_case(subject, note="default identity, away from kinks", smooth=True).having(identity=None)


@covers("FFN-13", cases=away_from_kinks, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)
