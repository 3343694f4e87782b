"""Cases of the detection losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_conformance.harness.block_case import block_case, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.losses.cases.matching import UNIT_COSTS, boxes_of, fixed_giou_eps, labels_of
from detr_conformance.topics.losses.cases.planted_losses import (
    ALL,
    CLASSES,
    CLEAR,
    DECODER,
    ONE_LAYER,
    WITH_DENOISING,
    WITH_ENCODER,
    Sizes,
    class_losses,
    clearest,
    drawn_until,
    matched_sets,
    need,
    planted,
    query_of,
)
from detr_conformance.topics.losses.checks.matching import costs

# -- complete calls -------------------------------------------------------------------------------------------


def of_each_class_loss(subject: Subject, note: str, sizes: Sizes = DECODER, **settings: Any) -> Iterator[Case]:
    for class_loss in class_losses(subject):
        yield planted(subject, f"{note}, {class_loss}", sizes, class_loss=class_loss, **settings)


def representative_detection_losses(subject: Subject) -> list[Case]:
    """All sets of predictions, where the target has them all."""
    if subject.variant("loss_sets") == "decoder":
        return [*of_each_class_loss(subject, "decoder layers"), planted(subject, "one layer", ONE_LAYER)]
    return [*of_each_class_loss(subject, "all sets", ALL), planted(subject, "one layer", ONE_LAYER)]


def other_numbers(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Other predictions, so little other that the assignment is as clear as it was."""
    factors = {"logits": 0.9, "boxes": 0.98}
    predictions = {name: tensor for name, tensor in inputs.items() if not name.startswith("target_")}
    return {name: tensor * factors[name.split("_")[1]] for name, tensor in predictions.items()}


def one_layer(subject: Subject, class_loss: str, **settings: Any) -> Iterator[Case]:
    """The last layer alone, with one class loss."""
    need(subject, class_loss=class_loss)
    yield planted(subject, f"{class_loss} alone", ONE_LAYER, class_loss=class_loss, **settings)


def one_setting_in_all_sets(subject: Subject, class_loss: str, **settings: Any) -> Iterator[Case]:
    """One layer, and all sets that the target has."""
    yield from one_layer(subject, class_loss, **settings)
    sizes = ALL if subject.variant("loss_sets") == "all" else Sizes(layers=2)
    yield planted(subject, f"{class_loss} in all sets", sizes, class_loss=class_loss, **settings)


def large_logits(subject: Subject) -> Iterator[Case]:
    """A softmax does not change if the same is added to all logits."""
    for case in one_layer(subject, "cross_entropy"):
        yield case.having(pred_logits=case["pred_logits"] + 128)


def box_losses(subject: Subject) -> Iterator[Case]:
    yield planted(subject, "boxes", ONE_LAYER)
    yield planted(subject, "more boxes", replace(ONE_LAYER, counts=(4, 1))).laid_out("transposed")


def decoder_layers(subject: Subject) -> Iterator[Case]:
    yield planted(subject, "three layers")
    yield planted(subject, "two layers", Sizes((3, 1), layers=2)).laid_out("sliced")


def without_a_plan(subject: Subject) -> Iterator[Case]:
    """Random predictions, of which the matching is clear, but would be another with one cost left out or exchanged."""
    for class_loss in class_losses(subject):
        for change in (*UNIT_COSTS, "class_cost"):
            yield _dependent_on(subject, class_loss, change)
    if "focal" in class_losses(subject):
        yield _dependent_on(subject, "focal", "alpha")


def _dependent_on(subject: Subject, class_loss: str, change: str) -> Case:
    """The same predictions in two layers and, where the target has it, in the encoder: what matters does in all."""
    weights = {"cost_class": 1.5, "cost_bbox": 4.0, "cost_giou": 3.0}
    weights |= {"cost_class": 5.0, "cost_bbox": 1.0, "cost_giou": 1.0, "alpha": 0.75} if change == "alpha" else {}
    settings = {"class_loss": class_loss, **weights, **fixed_giou_eps(subject)}
    channels, boxes = CLASSES + (class_loss == "cross_entropy"), 4
    note = f"no plan, {class_loss}, {change} matters"

    def draw(attempt: int) -> Case:
        fill = Filler(subject.dtype, subject.settings.seed, "losses", note, attempt)
        logits, of_queries = 2 * fill.normal(1, 6, channels), boxes_of(fill, 1, 6)
        tensors = {
            "pred_logits": logits.expand(2, -1, -1, -1),
            "pred_boxes": of_queries.expand(2, -1, -1, -1),
            "target_labels": labels_of(fill, boxes, CLASSES),
            "target_boxes": boxes_of(fill, boxes),
            "target_counts": torch.tensor([boxes]),
        }
        if subject.variant("loss_sets") == "all":
            tensors |= {"enc_logits": logits, "enc_boxes": of_queries}
        return block_case(subject, tensors, settings=settings, note=note)

    def good(case: Case) -> bool:
        whole = matched_sets(case)[""]
        other = "softmax" if class_loss == "focal" else "focal"
        changed = {change: {"class_cost": f'"{other}"', "alpha": "0.25"}.get(change, "0.0")}
        return clearest(case) > CLEAR and _assignment(whole) != _assignment(
            replace(whole, options=whole.options | changed)
        )

    return drawn_until(good, draw, subject, note)


def _assignment(case: Case) -> list[list[int]]:
    return [[index.tolist() for index in linear_sum_assignment(cost.numpy())] for cost in costs(case)]


def with_encoder(subject: Subject) -> Iterator[Case]:
    need(subject, every_set=True)
    yield from of_each_class_loss(subject, "encoder", WITH_ENCODER)
    yield planted(subject, "encoder, another batch", replace(WITH_ENCODER, counts=(4, 1))).laid_out("transposed")


def with_objectness(subject: Subject) -> Iterator[Case]:
    """Every box is of class 0 for the encoder; other layers and denoising keep their classes."""
    need(subject, every_set=True)
    for turn, sizes in enumerate((WITH_ENCODER, replace(ALL, counts=(1, 3)))):
        yield planted(subject, f"objectness {turn}", sizes, encoder_targets="objectness")


def with_denoising(subject: Subject) -> Iterator[Case]:
    need(subject, every_set=True)
    yield from of_each_class_loss(subject, "denoising", WITH_DENOISING)
    yield planted(subject, "denoising, one group", replace(WITH_DENOISING, groups=1, counts=(1, 4)))


def without_negatives(subject: Subject) -> Iterator[Case]:
    need(subject, every_set=True)
    yield planted(subject, "no negatives", replace(WITH_DENOISING, contrastive=False))


def with_ignored_slots(subject: Subject) -> Iterator[Case]:
    need(subject, every_set=True)
    yield from of_each_class_loss(subject, "ignored slots", WITH_DENOISING, padded_slots="ignored")
    sizes = replace(WITH_DENOISING, contrastive=False)
    yield planted(subject, "ignored slots, no negatives", sizes, padded_slots="ignored")


def nothing_to_denoise(subject: Subject) -> Iterator[Case]:
    """Denoising tensors of no slot, as where the batch has no box."""
    need(subject, every_set=True)
    for class_loss in class_losses(subject):
        sizes = Sizes(counts=(0, 0), layers=2)
        case = planted(subject, f"nothing to denoise, {class_loss}", sizes, class_loss=class_loss)
        shape = (2, 2, 0)
        channels = case["pred_logits"].shape[-1]
        tensors = {name: tensor for name, tensor in case.tensors.items() if name != "grad_output"}
        tensors |= {"dn_logits": torch.zeros(*shape, channels), "dn_boxes": torch.zeros(*shape, 4)}
        yield block_case(subject, tensors, settings=settings_of(case), note=case.note)


def crowded(subject: Subject) -> Iterator[Case]:
    """More boxes than queries in an image; those left over belong to none, but are counted."""
    yield from of_each_class_loss(subject, "more boxes than queries", Sizes(counts=(4, 1), layers=1, queries=3))


def empty_images(subject: Subject) -> Iterator[Case]:
    every = WITH_ENCODER if subject.variant("loss_sets") == "all" else ONE_LAYER
    yield from of_each_class_loss(subject, "empty images", replace(every, counts=(0, 2, 0)))


def empty_batches(subject: Subject) -> Iterator[Case]:
    every = WITH_ENCODER if subject.variant("loss_sets") == "all" else ONE_LAYER
    yield from of_each_class_loss(subject, "no box at all", replace(every, counts=(0, 0)))


def many_queries(subject: Subject) -> Iterator[Case]:
    """So many terms that their sum in half precision would stand still."""
    for class_loss in class_losses(subject):
        yield planted(subject, f"many queries, {class_loss}", Sizes((2, 3), 1, 300), class_loss=class_loss)


def half_precision(subject: Subject) -> Iterator[Case]:
    """Sums of many terms, and boxes that are nearly right: 1 - GIoU is a small difference then."""
    yield from many_queries(subject)
    case = planted(subject, "nearly right boxes", replace(ONE_LAYER, counts=(2, 3)))
    boxes, queries, start = case["pred_boxes"].double(), ONE_LAYER.queries, 0
    for image, count in enumerate((2, 3)):
        for box in range(count):
            right, query = case["target_boxes"][start + box].double(), query_of(box, 0, queries)
            boxes[0, image, query] = right + 0.15 * (boxes[0, image, query] - right)
        start += count
    yield case.having(pred_boxes=boxes.to(case["pred_boxes"].dtype))


# -- two processes, and what must be refused ------------------------------------------------------------------


def two_ranks(subject: Subject) -> Iterator[Case]:
    """Numbers of boxes of this process and of the other; their mean may be no whole number, or less than one."""
    for class_loss in class_losses(subject):
        for counts, other in (((2, 0, 3), 2), ((0, 0), 3), ((1, 3), 0), ((1, 0), 0)):
            sizes = Sizes(counts=counts, layers=1)
            case = planted(subject, f"{sum(counts)} and {other} boxes, {class_loss}", sizes, class_loss=class_loss)
            yield case.having(other_boxes=torch.tensor(other))
    if subject.variant("loss_sets") == "all":
        yield planted(subject, "all sets, 5 and 2 boxes", ALL).having(other_boxes=torch.tensor(2))


def not_finite(subject: Subject) -> Iterator[Case]:
    """One broken number in a decoder layer that is not the last."""
    case = planted(subject, "not finite", DECODER)
    for value in (torch.nan, torch.inf):
        for name in ("pred_logits", "pred_boxes"):
            broken = case[name].clone()
            broken[0, 2, 3, 1] = value
            yield case.having(**{name: broken})


def ill_fitting(subject: Subject) -> Iterator[Case]:
    """Targets that do not fit, the note says how."""
    case = planted(subject, "ill fitting", DECODER)
    for counts, wrong in (([2, 0, 2], "the counts add up to fewer than the boxes"), ([2, 3], "an image has no count")):
        yield replace(case.having(target_counts=torch.tensor(counts)), note=wrong)
    if subject.variant("loss_sets") == "all":
        case = planted(subject, "ill fitting slots", WITH_DENOISING)
        for name, tensor in (("dn_logits", case["dn_logits"]), ("dn_boxes", case["dn_boxes"])):
            case = case.having(**{name: tensor[:, :, :-1]})
        yield replace(case, note="the denoising queries are no whole number of groups")
