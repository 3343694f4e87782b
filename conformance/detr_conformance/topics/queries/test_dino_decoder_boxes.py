"""DINO's decoder: refinement, predictions, heads. Clauses: DEC-13 to DEC-23, DEC-33."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, parts
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.queries.cases.decoder import PLAIN, SMOOTH, asking, decoder_case, one_layer, two_layers
from detr_conformance.topics.queries.cases.special_decoder import silenced, small_streams
from detr_conformance.topics.queries.checks.decoder import parts_agree

OPERATION = "dino_decoder"


# -- refinement -----------------------------------------------------------------------------------------------


@covers("DEC-13", cases=lambda subject: [decoder_case(subject, replace(PLAIN, layers=3))])
def test_references_move(subject: Subject, case: Case) -> None:
    right = parts(case, expectations(subject, case, backward=False)["output"].expected)["references"]
    require(((right[1:] - right[:-1]).abs().amax((1, 2, 3)) > 0.05).all(), "the heads move no box")
    agrees(subject, case)


@covers("DEC-14", cases=one_layer)
def test_the_bare_output_refines(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "references")


@covers("DEC-15", cases=one_layer)
def test_added_before_the_sigmoid(subject: Subject, case: Case) -> None:
    """Heads that return the same for every query show what is done with it."""
    constant = silenced(case, "bbox_embed.0.layers.2.weight")
    parts_agree(subject, constant, "references", "pred_boxes")


def boxes_on_the_border(subject: Subject) -> Iterator[Case]:
    """Of two layers, so that the second one is fed boxes near the border as well."""
    for eps in (1e-3, 0.05):
        case = decoder_case(subject, replace(PLAIN, eps=eps), note=f"boxes within {eps} of the border")
        boxes = case["reference_points"].clone()
        boxes[:, 0] = torch.tensor((0.0, 1.0, eps / 2, 1 - eps / 2))
        boxes[:, 1, 2:] = 0
        yield case.having(reference_points=boxes)


@covers("DEC-16", cases=boxes_on_the_border)
def test_epsilon(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "references", "pred_boxes")


def small_boxes(subject: Subject) -> Iterator[Case]:
    """Heads that leave boxes nearly as they are, or each layer would look at larger ones."""
    case = silenced(decoder_case(subject, PLAIN, note="small boxes"), "layers.2.weight")
    boxes = case["reference_points"].clone()
    boxes[..., 2:] *= 0.01
    yield case.having(reference_points=boxes)


@covers("DEC-33", cases=small_boxes)
def test_small_boxes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- predictions ----------------------------------------------------------------------------------------------


@covers("DEC-17", cases=lambda subject: [*two_layers(subject), small_streams(subject)])
def test_norm(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "hidden_states", "pred_logits", "pred_boxes")


@covers("DEC-18", cases=two_layers)
def test_the_norm_is_not_fed_forward(subject: Subject, case: Case) -> None:
    scale = parameters_of(case)["norm.weight"] * 3
    parts_agree(subject, with_parameters(case, norm__weight=scale), "hidden_states")


@covers("DEC-19", cases=two_layers)
def test_predicted_from_where_the_layer_looked(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "pred_boxes")


@covers(
    "DEC-20", cases=lambda subject: [decoder_case(subject, asking(subject, replace(PLAIN, layers=3), shared=False))]
)
def test_separate_heads(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "references", "pred_logits", "pred_boxes")


@covers("DEC-21", cases=lambda subject: [decoder_case(subject, asking(subject, PLAIN, shared=True))])
def test_shared_heads(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def shared_and_smooth(subject: Subject) -> Iterator[Case]:
    """Of both kinds of looking forward that the target has, the loss of one layer's boxes alone."""
    for twice in (True, False):
        if subject.variant("look_forward") in ("any", "twice" if twice else "once"):
            s = asking(subject, SMOOTH, shared=True, twice=twice)
            case = decoder_case(subject, s, note="shared heads", smooth=True)
            for layer in range(s.layers):
                shares = {name: torch.zeros_like(part) for name, part in parts(case, case["grad_output"]).items()}
                shares["pred_boxes"][layer] = parts(case, case["grad_output"])["pred_boxes"][layer]
                yield case.having(grad_output=torch.cat([share.flatten() for share in shares.values()]))


@covers("DEC-21", cases=shared_and_smooth, feature="backward", once=True, plain=agrees)
def test_shared_heads_are_trained_through_each_call(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("DEC-22", cases=lambda subject: [decoder_case(subject, replace(PLAIN, layers=3))])
def test_references_that_are_returned(subject: Subject, case: Case) -> None:
    first = parts(case, forward(subject, case))["references"][0]
    subject.compare_exactly("references[0]", first, case["reference_points"])
    parts_agree(subject, case, "references")


def several_depths(subject: Subject) -> Iterator[Case]:
    for layers in (1, 2, 3, 6):
        yield decoder_case(subject, replace(PLAIN, layers=layers))
    yield decoder_case(subject, replace(PLAIN, valid=PLAIN.valid[:1], layers=1, queries=1), note="one of everything")


@covers("DEC-23", cases=several_depths)
def test_any_number_of_layers(subject: Subject, case: Case) -> None:
    agrees(subject, case)
