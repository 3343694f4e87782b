"""DINO's decoder: which loss reaches which head, precision, initial parameters. Clauses: DEC-24 to DEC-32."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees, forward, fresh, gradients_agree, parameters_by_name, parts
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import HALF, covers
from detr_conformance.topics.queries.cases.decoder import (
    LONG,
    PLAIN,
    SMOOTH,
    asking,
    decoder_case,
    drawn_decoders,
    smooth_decoders,
)
from detr_conformance.topics.queries.cases.special_decoder import as_deep_as_published, fine_boxes, published
from detr_conformance.topics.queries.checks.decoder import agrees_without_rounded_inputs, no_gradient, reaches

OPERATION = "dino_decoder"


# -- gradients ------------------------------------------------------------------------------------------------

LAYERS = 7
DIAGONAL = ["." * layer + "#" + "." * (LAYERS - 1 - layer) for layer in range(LAYERS)]
BAND = ["".join("#" if layer - head in (0, 1) else "." for head in range(LAYERS)) for layer in range(LAYERS)]
NONE = ["." * LAYERS] * LAYERS
DEEP = replace(SMOOTH, layers=LAYERS)


def deep(subject: Subject, **alternatives: bool) -> list[Case]:
    """One layer more than published."""
    return [decoder_case(subject, asking(subject, DEEP, **alternatives), note="seven layers", smooth=True)]


def either_way(subject: Subject) -> Iterator[Case]:
    """Looking forward twice and once, as far as the target does both."""
    for twice in (True, False):
        if subject.variant("look_forward") in ("any", "twice" if twice else "once"):
            yield from deep(subject, twice=twice)


def with_own_heads(case: Case, rows: list[str]) -> list[str]:
    """The rows as they are, or of the one head that all layers share."""
    shared = settings_of(case)["shared_heads"]
    return ["#" if "#" in row else "." for row in rows] if shared else rows


@covers("DEC-24", cases=either_way, feature="backward", once=True, plain=agrees)
def test_fed_boxes_are_detached(subject: Subject, case: Case) -> None:
    reaches(subject, case, "hidden_states", "bbox_embed", with_own_heads(case, NONE))


@covers(
    "DEC-25", cases=lambda subject: deep(subject, shared=False, twice=True), feature="backward", once=True, plain=agrees
)
def test_look_forward_twice(subject: Subject, case: Case) -> None:
    reaches(subject, case, "pred_boxes", "bbox_embed", BAND)
    reaches(subject, case, "references", "bbox_embed", [NONE[0], *DIAGONAL])


@covers(
    "DEC-26",
    cases=lambda subject: deep(subject, shared=False, twice=False),
    feature="backward",
    once=True,
    plain=agrees,
)
def test_look_forward_once(subject: Subject, case: Case) -> None:
    reaches(subject, case, "pred_boxes", "bbox_embed", DIAGONAL)
    reaches(subject, case, "references", "bbox_embed", [NONE[0], *NONE])


@covers("DEC-27", cases=either_way, feature="backward", once=True, plain=agrees)
def test_initial_boxes_are_constants(subject: Subject, case: Case) -> None:
    no_gradient(subject, case, "reference_points")


@covers("DEC-28", cases=either_way, feature="backward", once=True, plain=agrees)
def test_losses_keep_to_their_heads(subject: Subject, case: Case) -> None:
    reaches(subject, case, "pred_logits", "class_embed", with_own_heads(case, DIAGONAL))
    reaches(subject, case, "pred_logits", "bbox_embed", with_own_heads(case, NONE))
    reaches(subject, case, "pred_boxes", "class_embed", with_own_heads(case, NONE))


# -- numbers --------------------------------------------------------------------------------------------------


@covers("DEC-29", cases=lambda subject: drawn_decoders(subject), share=0.25)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers("DEC-29", cases=lambda subject: [decoder_case(subject, LONG, note="a long level")])
def test_accuracy_on_long_levels(subject: Subject, case: Case) -> None:
    require(case["spatial_shapes"].max() >= 50, "no long level")
    agrees(subject, case, precise=True)


@covers("DEC-29", cases=lambda subject: [published(subject)], dtypes=("float32",))
def test_accuracy_at_published_size(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers("DEC-30", cases=lambda subject: [fine_boxes(subject)], dtypes=HALF)
def test_boxes_in_float32(subject: Subject, case: Case) -> None:
    agrees_without_rounded_inputs(subject, case, "hidden_states")


@covers("DEC-31", cases=as_deep_as_published, dtypes=("float32",), feature="backward", plain=agrees)
def test_gradients_of_six_layers(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("DEC-31", cases=smooth_decoders, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


ZERO_AT_FIRST = (
    "bbox_embed.0.layers.2.",
    "bbox_embed.1.layers.2.",
    "attentions.1.sampling_offsets.weight",
    "attentions.1.attention_weights.",
)


def freshly_initialised(subject: Subject) -> Iterator[Case]:
    yield decoder_case(subject, replace(PLAIN, classes=7), note="own parameters")


@covers("DEC-32", cases=freshly_initialised, once=True)
def test_initialisation(subject: Subject, case: Case) -> None:
    module = fresh(subject, case)
    own = parameters_by_name(OPERATION, module, case)
    found = {name: torch.cat(several).detach().cpu().double() for name, several in own.items()}
    for name, tensor in found.items():
        if name.startswith("class_embed") and name.endswith("bias"):
            subject.compare(name, tensor, torch.full_like(tensor, -math.log(99)), torch.full_like(tensor, 1e-2))
        elif any(part in name for part in ZERO_AT_FIRST):
            subject.compare_exactly(name, tensor, torch.zeros_like(tensor))
    first = parts(case, forward(subject, case, module))
    reference = case["reference_points"].double()
    boxes = first["pred_boxes"].detach().cpu().double()
    for layer, predicted in enumerate(boxes):
        near = torch.full_like(reference, 4 * torch.finfo(subject.torch_dtype).eps)
        subject.compare(f"pred_boxes[{layer}]", predicted, reference, near)
