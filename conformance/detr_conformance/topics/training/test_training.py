"""The target along the reference's training, the profile "training". Clauses: spec chapter 21."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.detectors.cases.models import forms
from detr_conformance.topics.detectors.cases.regimes import switched
from detr_conformance.topics.training.checks.steps import (
    accumulation_agrees,
    gradients_agree,
    losses_agree,
    reach_agrees,
    returned,
    visited,
)
from detr_conformance.topics.training.checks.trajectory import case_with_margins

OPERATIONS = ("ms_deform_attn", "detr", "deformable_detr", "dino")
PRECISE = ("float32", "float64")  # nobody trains his parameters in half precision


def trainings(subject: Subject) -> Iterator[Case]:
    """The target's own model, in every form that it has; or the two models around a sampling function."""
    if subject.operation == "ms_deform_attn":
        for model in ("deformable_detr", "dino"):
            yield case_with_margins(model, subject.settings.seed)
        return
    for settings in trained_forms(subject):
        yield case_with_margins(subject.operation, subject.settings.seed, **settings)


def trained_forms(subject: Subject) -> Iterator[dict[str, Any]]:
    """The usual forms; and DINO's switches, with denoising as usual or none."""
    yield from forms(subject).values()
    for name, settings in switched(subject).items():
        if name != "looking forward once":  # pure selection does
            yield {switch: value for switch, value in settings.items() if (switch, value) != ("denoising", "plain")}


@covers("TRN-1", cases=trainings, dtypes=PRECISE, feature="backward", once=True, profile="training")
def test_losses(subject: Subject, case: Case) -> None:
    losses_agree(subject, visited(subject, case))


@covers("TRN-2", cases=trainings, dtypes=PRECISE, feature="backward", once=True, profile="training")
def test_parameter_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, visited(subject, case))


@covers("TRN-3", cases=trainings, dtypes=PRECISE, feature="backward", once=True, profile="training")
def test_reached_parameters(subject: Subject, case: Case) -> None:
    reach_agrees(visited(subject, case))


@covers("TRN-4", cases=trainings, dtypes=PRECISE, feature="backward", once=True, profile="training")
def test_return_to_an_earlier_step(subject: Subject, case: Case) -> None:
    """With the same module, after all the others."""
    visits = returned(subject, case)
    losses_agree(subject, visits, " once more, after the last")
    gradients_agree(subject, visits, " once more, after the last")


@covers("TRN-5", cases=trainings, dtypes=PRECISE, feature="backward", once=True, profile="training")
def test_accumulation(subject: Subject, case: Case) -> None:
    accumulation_agrees(subject, case)
