"""Which prediction answers for which box (chapter 15, HM)."""

from __future__ import annotations

import re

from detr_conformance.harness.block import calling, make, outputs, raises
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Raised, expect
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import HALF, covers
from detr_conformance.topics.losses.cases.matching import (
    class_alone,
    close_calls,
    crowds,
    drawn,
    few_queries,
    focal_alone,
    focal_with_other_settings,
    foreign_labels,
    giou_alone,
    identical,
    ill_fitting,
    l1_alone,
    not_finite,
    ordinary,
    plain,
    saturated,
    softmax_alone,
    weighted,
    without_area,
    without_boxes,
)
from detr_conformance.topics.losses.checks.matching import KEYS, is_cheapest, of_least_cost, one_to_one, pairs_of

OPERATION = "hungarian_matching"


# -- form -----------------------------------------------------------------------------------------------------


@covers("HM-1", cases=drawn, share=0.5)
def test_one_to_one(subject: Subject, case: Case) -> None:
    one_to_one(case, pairs_of(subject, case))


@covers("HM-2", cases=ordinary)
def test_form(subject: Subject, case: Case) -> None:
    pairs = pairs_of(subject, case)
    place = pairs["image"] * case["pred_logits"].shape[1] + pairs["query"]
    ordered = bool((place.diff() > 0).all())
    expect(ordered, f"the pairs are not ordered by image and query: {place.tolist()}", where="query")
    one_to_one(case, pairs)


@covers("HM-24", cases=plain)
def test_no_memory_of_the_past(subject: Subject, case: Case) -> None:
    """The same storage with other predictions and targets."""
    bound, inputs = calling(subject, make(subject, case), case)
    storage = bound.arguments(inputs)
    names = ("pred_logits", "pred_boxes", "target_labels", "target_boxes")
    other = case.having(**{name: case[name].flip(0) for name in names})
    for tried in (case, other):
        for name in names:
            storage[name].copy_(tried[name])
        bound.call(storage)
        of_least_cost(subject, tried, {name: bound.raw[name].cpu() for name in KEYS})
        bound.drop_held()


# -- cost -----------------------------------------------------------------------------------------------------


@covers("HM-3", cases=drawn)
def test_cheapest_of_all(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-3", cases=crowds)
def test_cheapest_in_a_crowd(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-4", cases=focal_alone)
def test_focal_cost(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-5", cases=focal_with_other_settings)
def test_alpha_and_gamma(subject: Subject, case: Case) -> None:
    """A target that has only the usual values says so by NotImplementedError."""
    try:
        is_cheapest(subject, case)
    except Raised as raised:
        if raised.got == "NotImplementedError":
            raise NotProvided("alpha and gamma of the cost are fixed") from raised
        raise


@covers("HM-6", cases=softmax_alone)
def test_softmax_cost(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-7", cases=class_alone)
def test_class_of_the_box(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-8", cases=l1_alone)
def test_l1_cost(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-9", cases=giou_alone)
def test_giou_cost(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-10", cases=weighted)
def test_weights(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-11", cases=saturated, dtypes=("float64", "float32"))
def test_saturated_probabilities(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-12", cases=close_calls, dtypes=HALF)
def test_precision(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case, precise=True)


# -- batches --------------------------------------------------------------------------------------------------


@covers("HM-13", cases=plain)
def test_each_image_by_itself(subject: Subject, case: Case) -> None:
    """An image's pairs cost what they cost without the other images."""
    is_cheapest(subject, case)
    start = 0
    for image, count in enumerate(case["target_counts"].tolist()):
        alone = case.having(
            **{name: case[name][image : image + 1] for name in ("pred_logits", "pred_boxes", "target_counts")},
            **{name: case[name][start : start + count] for name in ("target_labels", "target_boxes")},
        )
        is_cheapest(subject, alone)
        start += count


@covers("HM-14", cases=few_queries)
def test_more_boxes_than_queries(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-15", cases=without_boxes)
def test_images_without_boxes(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-16", cases=identical)
def test_ties(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-17", cases=without_area)
def test_boxes_without_area(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


# -- frame ----------------------------------------------------------------------------------------------------


@covers("HM-18", cases=plain)
def test_arguments(subject: Subject, case: Case) -> None:
    """Each call compares the bytes of its arguments, however these lie in memory."""
    for layout in ("contiguous", "offset", "transposed", "sliced"):
        is_cheapest(subject, case.laid_out(layout))


@covers("HM-19", cases=plain)
def test_predictions_in_training(subject: Subject, case: Case) -> None:
    """Predictions ask for gradients, and so would any result that is made of them."""
    bound, inputs = calling(subject, make(subject, case), case)
    arguments = bound.arguments(inputs)
    for name in ("pred_logits", "pred_boxes"):
        arguments[name].requires_grad_()
    bound.call(arguments)
    for name in KEYS:
        expect(not bound.raw[name].requires_grad, f"{name} asks for gradients", where=name)
    one_to_one(case, {name: bound.raw[name].cpu() for name in KEYS})


@covers("HM-20", cases=not_finite)
def test_predictions_that_are_not_finite(subject: Subject, case: Case) -> None:
    raises(subject, case, "a prediction is not finite")


@covers("HM-21", cases=not_finite)
def test_which_prediction_is_not_finite(subject: Subject, case: Case) -> None:
    """The numbers 2 and 5 stand in the message, each by itself."""
    try:
        outputs(subject, case)
    except Raised as raised:
        told = str(raised.__cause__)
    else:
        told = "no error"
    named = {int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.]*\d)", told)}
    expect({2, 5} <= named, f"the error names neither image 2 nor query 5, or one of them: {told}", got=told)


@covers("HM-22", cases=ill_fitting, once=True)
def test_targets_that_do_not_fit(subject: Subject, case: Case) -> None:
    raises(subject, case, case.note)


@covers("HM-23", cases=foreign_labels, once=True)
def test_labels_of_no_class(subject: Subject, case: Case) -> None:
    raises(subject, case, case.note)
