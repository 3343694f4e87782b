"""Post-processing (chapter 16, PP-1 to PP-16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import outputs, raises
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.detectors.cases import postprocess as cases
from detr_conformance.topics.detectors.checks.postprocess import (
    a_best_choice,
    detections_agree,
    labels_agree,
    labels_of,
)

OPERATION = "postprocess"


@covers("PP-1", cases=cases.best_pairs)
def test_best_pairs(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-1", cases=cases.drawn)
def test_drawn_scores(subject: Subject, case: Case) -> None:
    a_best_choice(subject, case)


@covers("PP-1", "PP-2", cases=cases.as_in_a_detector, dtypes=("float64", "float32"))
def test_as_in_a_detector(subject: Subject, case: Case) -> None:
    a_best_choice(subject, case)


@covers("PP-2", cases=cases.best_pairs)
def test_query_and_class(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-3", cases=cases.best_pairs)
def test_several_classes_of_a_query(subject: Subject, case: Case) -> None:
    classes, wanted = case["pred_logits"].shape[-1], settings_of(case)["num_select"]
    best = case["pred_logits"].flatten(1).topk(wanted).indices // classes
    require(wanted == 1 or all(len(set(image)) < wanted for image in best.tolist()), "a query with two detections")
    a_best_choice(subject, case)


@covers("PP-4", cases=cases.best_pairs)
def test_best_first(subject: Subject, case: Case) -> None:
    labels_agree(subject, case)


@covers("PP-5", cases=cases.fewer_pairs)
def test_fewer_pairs(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-6", cases=cases.equal_scores)
def test_equal_scores(subject: Subject, case: Case) -> None:
    a_best_choice(subject, case)


@covers("PP-7", cases=cases.one_a_query)
def test_one_detection_a_query(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-8", cases=cases.one_a_query)
def test_no_object(subject: Subject, case: Case) -> None:
    best = case["pred_logits"].argmax(-1)
    last = case["pred_logits"].shape[-1] - 1
    require((best == last).any() and (best < last).any(), "queries of an object and of none")
    detections_agree(subject, case)


@covers("PP-9", cases=cases.of_each_kind)
def test_corners(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-10", cases=cases.three_sizes)
def test_original_size(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-11", cases=cases.beyond_the_image)
def test_boxes_beyond_the_image(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-12", cases=cases.one_place)
def test_no_suppression(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)


@covers("PP-13", cases=cases.of_each_kind)
def test_whole_labels(subject: Subject, case: Case) -> None:
    labels_of(outputs(subject, case))
    labels_agree(subject, case)


def accurate_cases(subject: Subject) -> Iterator[Case]:
    yield from cases.of_each_kind(subject)
    yield from cases.three_sizes(subject)


@covers("PP-14", cases=accurate_cases)
def test_accuracy(subject: Subject, case: Case) -> None:
    detections_agree(subject, case, precise=True)


@covers("PP-15", cases=lambda subject: [next(iter(cases.three_sizes(subject)))], once=True)
def test_a_size_for_each_image(subject: Subject, case: Case) -> None:
    for sizes in (case["sizes"][:1], case["sizes"][:2], torch.cat((case["sizes"], case["sizes"][:1]))):
        raises(subject, case.having(sizes=sizes), f"there are {len(sizes)} sizes for {len(case['sizes'])} images")


@covers("PP-16", cases=lambda subject: [next(iter(cases.of_each_kind(subject)))], once=True)
def test_known_scores(subject: Subject, case: Case) -> None:
    unknown = replace(case, options=case.options | {"scores": '"logits"'})
    raises(subject, unknown, "scores is 'logits'")


@covers("PP-17", cases=cases.large, dtypes=("float64", "float32"), once=True)
def test_large_calls(subject: Subject, case: Case) -> None:
    detections_agree(subject, case)
