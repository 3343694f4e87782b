"""The whole DINO with each of its switches turned. Clauses: spec chapter 19, DINO-19 to DINO-21."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detr_conformance.harness.block import agrees
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.detectors.cases.models import with_targets
from detr_conformance.topics.detectors.cases.regimes import can_turn, with_switches
from detr_conformance.topics.detectors.checks.in_training import agrees_in_training
from detr_conformance.topics.detectors.checks.models import (
    expect_reached,
    expect_unreached,
    gradients_agree_in_norm,
    reached,
    trained_outputs,
)

FLOAT32 = ("float32",)
OPERATION = "dino"
PREDICTIONS = ("pred_logits", "pred_boxes")
SILENT: dict[str, Any] = {"denoising_number": 9, "label_noise_ratio": 0.0, "box_noise_scale": 0.0}


# -- where queries come from ----------------------------------------------------------------------------------


def pure(subject: Subject) -> Iterator[Case]:
    yield with_switches(subject, "pure selection", query_selection="pure")


@covers("DINO-19", cases=pure, dtypes=FLOAT32, feature="backward")
def test_pure_selection(subject: Subject, case: Case) -> None:
    """What a selected cell holds is the query's content, detached as its box is."""
    gradients_agree_in_norm(subject, case)
    last = settings_of(case)["num_decoder_layers"]
    first_stage = [f"class_embed.{last}.", f"bbox_embed.{last}.", "transformer.enc_output"]
    for output in PREDICTIONS:
        found = reached(subject, case, output, None)
        expect_unreached(found, first_stage, output)
        expect_reached(found, ["transformer.encoder.layers.0.", "backbone"], output)


def static(subject: Subject) -> Iterator[Case]:
    for twice in (True, False):
        if can_turn(subject, "look_forward_twice") or twice:
            switches: dict[str, Any] = {} if twice else {"look_forward_twice": False}
            note = f"static selection, looking forward {'twice' if twice else 'once'}"
            yield with_switches(subject, note, query_selection="static", **switches)


@covers("DINO-19", cases=static, dtypes=FLOAT32, feature="backward")
def test_static_selection(subject: Subject, case: Case) -> None:
    """Learned boxes, which the decoder's losses train, and no first stage."""
    gradients_agree_in_norm(subject, case)
    for output in PREDICTIONS:
        found = reached(subject, case, output, None)
        expect_reached(found, ["transformer.refpoint_embed", "transformer.tgt_embed"], output)


def forward_only(subject: Subject) -> Iterator[Case]:
    yield from pure(subject)
    yield from static(subject)


@covers("DINO-19", cases=forward_only, dtypes=FLOAT32)
def test_selection_is_the_configured_one(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- looking forward ------------------------------------------------------------------------------------------


def once(subject: Subject) -> Iterator[Case]:
    yield with_switches(subject, "looking forward once", look_forward_twice=False)


@covers("DINO-20", cases=once, dtypes=FLOAT32, feature="backward")
def test_look_forward_once(subject: Subject, case: Case) -> None:
    """The boxes of layer i train the box head of layer i and no other; what heads share is trained all the same."""
    gradients_agree_in_norm(subject, case)
    if settings_of(case).get("shared_heads"):
        return
    layers = range(settings_of(case)["num_decoder_layers"])
    for layer in layers:
        found = reached(subject, case, "pred_boxes", layer)
        what = f"the boxes of layer {layer}"
        expect_reached(found, [f"bbox_embed.{layer}."], what)
        expect_unreached(found, [f"bbox_embed.{other}." for other in layers if other != layer], what)


# -- denoising ------------------------------------------------------------------------------------------------


def silent(subject: Subject) -> Iterator[Case]:
    """Noise of size zero: denoising queries start at their objects, and nothing is random. Three groups, then four."""
    for kind in ("contrastive", "plain"):
        if kind == "contrastive" or can_turn(subject, "denoising"):
            switches: dict[str, Any] = {} if kind == "contrastive" else {"denoising": kind}
            case = with_switches(subject, f"{kind} denoising without noise", SILENT, **switches)
            yield with_targets(subject, case, *((3, 1) if kind == "contrastive" else (0, 2)))


@covers("DINO-21", cases=silent, dtypes=FLOAT32)
def test_denoising_without_noise(subject: Subject, case: Case) -> None:
    """Content, references, groups that do not see each other: all of it shows in what denoising queries predict."""
    agrees_in_training(subject, case)


def no_denoising(subject: Subject) -> Iterator[Case]:
    yield with_targets(subject, with_switches(subject, "no denoising", denoising="none"), 3, 1)


@covers("DINO-21", cases=no_denoising, dtypes=FLOAT32)
def test_no_denoising(subject: Subject, case: Case) -> None:
    agrees_in_training(subject, case)
    found = trained_outputs(subject, case)
    denoised = [name for name, tensor in found.items() if name.startswith("dn_") and tensor.numel()]
    expect(not denoised, f"without denoising there are {', '.join(denoised)}", where="dn_logits")
