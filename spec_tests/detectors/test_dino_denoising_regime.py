"""What DINO's denoising cases show: boxes and labels can be read off, in enough groups, of enough labels."""

from __future__ import annotations

import pytest

from detr_conformance.harness.subject import Subject
from detr_conformance.targets.reference import target as reference
from detr_conformance.topics.detectors.cases.dino_denoising import (
    a_sample,
    logits_of_labels,
    many_labels,
    several_noises,
)
from detr_conformance.topics.detectors.checks.dino_denoising import denoising_queries, labels_reached
from detr_conformance.topics.detectors.checks.models import trained_outputs, training

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
SUBJECT = Subject("dino", reference.provides["dino"])


def test_three_groups_and_more_are_read() -> None:
    cases = list(several_noises(SUBJECT))
    groups = [denoising_queries(SUBJECT, case, trained_outputs(SUBJECT, case)).content.shape[1] for case in cases]
    assert min(groups) >= 3
    assert any(0 in case["target_counts"].tolist() for case in cases)
    assert len(set(cases[0]["target_counts"].tolist())) == 4


def test_a_sample_is_large_and_its_labels_differ() -> None:
    (case,) = a_sample(SUBJECT)
    seen = denoising_queries(SUBJECT, case, trained_outputs(SUBJECT, case))
    assert seen.noised_labels.shape[1] >= 20
    assert seen.noised_labels.numel() > 2_000
    assert (seen.noised_labels != seen.labels[:, None, None]).any()
    assert len(logits_of_labels(case).unique(dim=0)) == 5


def test_groups_hold_different_labels() -> None:
    """So that a group which sees another depends on more labels than it has queries."""
    few, many = many_labels(SUBJECT)
    for case, groups in ((few, 5), (many, 65)):
        module = training(SUBJECT, case)
        (table,) = [each for name, each in module.named_parameters() if name == "label_enc.weight"]
        found = labels_reached(SUBJECT, case, module, table)
        sets = {frozenset(set.union(*queries)) for image in found for queries in image}
        assert len(sets) > len(found)
        assert trained_outputs(SUBJECT, case)["dn_logits"].shape[2] >= groups * 2
