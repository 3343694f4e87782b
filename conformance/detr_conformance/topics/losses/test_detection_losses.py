"""The losses of decoder layers, encoder and denoising (chapter 15, LOSS)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import expectations, gradients_agree, raises, run
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import HALF, covers
from detr_conformance.topics.losses.cases.losses import (
    box_losses,
    crowded,
    decoder_layers,
    empty_batches,
    empty_images,
    half_precision,
    ill_fitting,
    large_logits,
    not_finite,
    nothing_to_denoise,
    of_each_class_loss,
    one_layer,
    one_setting_in_all_sets,
    representative_detection_losses,
    two_ranks,
    with_denoising,
    with_encoder,
    with_ignored_slots,
    with_objectness,
    without_a_plan,
    without_negatives,
)
from detr_conformance.topics.losses.cases.planted_losses import ALL, WITH_DENOISING, WITH_ENCODER, layers_only, planted
from detr_conformance.topics.losses.checks.losses import (
    beside_another_process,
    compare_losses,
    every_gradient,
    losses_agree,
    named,
    of_its_own_set,
    rounded_once,
    scaled_to,
    settings_provided,
    split_name,
)

OPERATION = "detection_losses"


# -- form -----------------------------------------------------------------------------------------------------


def several_sets(subject: Subject) -> Iterator[Case]:
    yield planted(subject, "one layer", layers_only(1))
    yield planted(subject, "four layers", layers_only(4))
    if subject.variant("loss_sets") == "all":
        for sizes in (WITH_ENCODER, WITH_DENOISING, ALL):
            yield planted(subject, "sets", sizes)


@covers("LOSS-1", cases=several_sets, once=True)
def test_names(subject: Subject, case: Case) -> None:
    named(subject, case, set(case.shapes or {}))


# -- one set of predictions -----------------------------------------------------------------------------------


@covers("LOSS-2", cases=lambda subject: one_layer(subject, "focal"))
def test_focal_loss(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_class")


@covers("LOSS-3", cases=lambda s: one_setting_in_all_sets(s, "focal", alpha=0.6, gamma=1.5), once=True)
def test_alpha_and_gamma(subject: Subject, case: Case) -> None:
    settings_provided(subject, case, "loss_class")


@covers("LOSS-4", cases=lambda subject: one_layer(subject, "cross_entropy"))
def test_cross_entropy(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_class")


@covers("LOSS-4", cases=large_logits, once=True)
def test_cross_entropy_of_large_logits(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_class")


@covers("LOSS-5", cases=lambda s: one_setting_in_all_sets(s, "cross_entropy", no_object_weight=0.4), once=True)
def test_no_object_weight(subject: Subject, case: Case) -> None:
    settings_provided(subject, case, "loss_class")


@covers("LOSS-6", cases=lambda subject: of_each_class_loss(subject, "classes", layers_only(1)), once=True)
def test_class_of_a_query(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_class")


@covers("LOSS-7", cases=box_losses)
def test_l1_loss(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_bbox")


@covers("LOSS-8", cases=box_losses)
def test_giou_loss(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_giou")


@covers("LOSS-9", cases=half_precision, dtypes=HALF)
def test_precision(subject: Subject, case: Case) -> None:
    rounded_once(subject, case)


# -- what is divided by ---------------------------------------------------------------------------------------


@covers("LOSS-10", cases=decoder_layers, once=True)
def test_number_of_boxes(subject: Subject, case: Case) -> None:
    losses_agree(subject, case)


@covers("LOSS-11", cases=empty_batches, once=True)
def test_no_box_at_all(subject: Subject, case: Case) -> None:
    losses_agree(subject, case)


@covers("LOSS-12", cases=crowded, once=True)
def test_more_boxes_than_queries(subject: Subject, case: Case) -> None:
    losses_agree(subject, case)


@covers("LOSS-13", cases=two_ranks, once=True)
def test_mean_over_processes(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    class_loss = settings_of(case)["class_loss"]
    expected, limit = (scaled_to(case, joined, class_loss) for joined in (right.expected, right.limit))
    compare_losses(subject, case, beside_another_process(subject, case), expected, limit)


@covers("LOSS-14", cases=two_ranks, once=True)
def test_same_collectives(subject: Subject, case: Case) -> None:
    """`beside_another_process` compares the collectives of both."""
    beside_another_process(subject, case)


# -- who is matched with whom ---------------------------------------------------------------------------------


@covers("LOSS-15", cases=without_a_plan, once=True)
def test_matched_by_the_costs_of_the_matching(subject: Subject, case: Case) -> None:
    losses_agree(subject, case)


@covers("LOSS-16", cases=decoder_layers, once=True)
def test_each_layer_by_itself(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, of="")


@covers("LOSS-17", cases=with_encoder, once=True)
def test_encoder(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, of="enc")


@covers("LOSS-18", cases=with_objectness, once=True)
def test_objectness(subject: Subject, case: Case) -> None:
    settings_provided(subject, case)


# -- denoising ------------------------------------------------------------------------------------------------


@covers("LOSS-19", cases=with_denoising, once=True)
def test_denoising_boxes(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_bbox", "loss_giou", of="dn")


@covers("LOSS-20", cases=with_denoising, once=True)
def test_negatives_and_padding(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, "loss_class", of="dn")


@covers("LOSS-21", cases=with_denoising, once=True)
def test_boxes_of_all_groups(subject: Subject, case: Case) -> None:
    losses_agree(subject, case, of="dn")


@covers("LOSS-22", cases=without_negatives, once=True)
def test_without_negatives(subject: Subject, case: Case) -> None:
    settings_provided(subject, case)


@covers("LOSS-23", cases=with_ignored_slots, once=True)
def test_ignored_slots(subject: Subject, case: Case) -> None:
    settings_provided(subject, case)


@covers("LOSS-24", cases=nothing_to_denoise, once=True)
def test_nothing_to_denoise(subject: Subject, case: Case) -> None:
    losses_agree(subject, case)


# -- gradients ------------------------------------------------------------------------------------------------


@covers("LOSS-25", cases=representative_detection_losses, feature="backward")
def test_own_predictions_only(subject: Subject, case: Case) -> None:
    """Other layers and sets get none, or zeros; its own set gets some."""
    for name, gradients in every_gradient(subject, case).items():
        kind = split_name(name)[0]
        for argument, gradient in gradients.items():
            if gradient is None:
                gradient = torch.zeros_like(case[argument])
            own = of_its_own_set(name, argument, gradient)
            stray = int((gradient[~own] != 0).sum())
            expect(stray == 0, f"{name} reaches {stray} elements of {argument} that it is not about", where=name)
            if own.any() and argument.endswith("logits" if kind == "loss_class" else "boxes"):
                expect(bool((gradient[own] != 0).any()), f"{name} does not reach its own {argument}", where=name)
    gradients_agree(subject, case)


@covers("LOSS-26", cases=empty_images, feature="backward", dtypes=("float32", "float16"))
def test_images_without_boxes(subject: Subject, case: Case) -> None:
    found = run(subject, case).gradients
    empty = case["target_counts"] == 0
    for name in found:
        gradient = subject.gradient(name, found)
        expect(bool(gradient.isfinite().all()), f"grad_{name} is not finite", where=f"grad_{name}")
        if name.endswith("boxes"):
            images = gradient.movedim(-3, 0)[empty.to(gradient.device)]
            expect(not images.any(), f"images without boxes have a gradient of {name}", where=f"grad_{name}")
    gradients_agree(subject, case)


@covers("LOSS-27", cases=empty_batches, feature="backward", dtypes=("float32", "float16"))
def test_connected_without_boxes(subject: Subject, case: Case) -> None:
    """`every_gradient` refuses a loss that is a constant."""
    for name, gradients in every_gradient(subject, case).items():
        for argument, gradient in gradients.items():
            if gradient is not None:
                expect(bool(gradient.isfinite().all()), f"the gradient of {name} by {argument} is not finite")
    gradients_agree(subject, case)


# -- frame ----------------------------------------------------------------------------------------------------


@covers("LOSS-28", cases=representative_detection_losses)
def test_arguments_and_their_strides(subject: Subject, case: Case) -> None:
    """Each call compares the bytes of its arguments."""
    for layout in ("contiguous", "transposed", "sliced"):
        losses_agree(subject, case.laid_out(layout))


@covers("LOSS-29", cases=not_finite)
def test_predictions_that_are_not_finite(subject: Subject, case: Case) -> None:
    raises(subject, case, "a prediction is not finite")


@covers("LOSS-30", cases=ill_fitting, once=True)
def test_targets_that_do_not_fit(subject: Subject, case: Case) -> None:
    raises(subject, case, case.note)
