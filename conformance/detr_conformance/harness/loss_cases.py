"""Cases of the detection losses.

Each box has a query that was planted for it: near it, and sure of its class. Which query that is differs from layer to
layer. Batches are drawn until the assignment is clear in every layer, so that no rounding can change it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_conformance.harness.block_case import block_case, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.matching_cases import UNIT_COSTS, boxes_of, fixed_giou_eps, labels_of
from detr_conformance.harness.matching_checks import costs, margin
from detr_conformance.harness.mismatch import SuiteError
from detr_conformance.harness.subject import NotProvided, Subject
from detr_reference.criterion import CLASS_COST_OF

CLEAR = 0.4  # how much dearer the second cheapest assignment must be
ATTEMPTS = 200
_found: dict[tuple[Any, ...], Case] = {}  # by what they were drawn for
CLASSES = 4
CELLS = torch.tensor(list(itertools.product((0.2, 0.45, 0.7), (0.25, 0.55, 0.8))), dtype=torch.float64)


@dataclass(frozen=True)
class Sizes:
    """Of a batch: 0 layers of denoising or 0 tokens mean that there is none."""

    counts: tuple[int, ...] = (2, 0, 3)
    layers: int = 3
    queries: int = 5
    tokens: int = 0
    groups: int = 0
    contrastive: bool = True

    @property
    def slots(self) -> int:
        return self.groups * max(self.counts) * (2 if self.contrastive else 1)


DECODER = Sizes()
ONE_LAYER = Sizes(layers=1)
WITH_ENCODER = Sizes(layers=2, tokens=6)
WITH_DENOISING = Sizes(layers=2, groups=3)
ALL = Sizes(layers=2, tokens=6, groups=2)


def layers_only(number: int) -> Sizes:
    return Sizes(layers=number)


def class_losses(subject: Subject) -> tuple[str, ...]:
    """The class losses that a target has."""
    said = subject.variant("class_loss")
    return ("focal", "cross_entropy") if said == "any" else (said,)


def need(subject: Subject, *, class_loss: str | None = None, every_set: bool = False) -> None:
    """Cases for what a target does not have are none."""
    if class_loss is not None and class_loss not in class_losses(subject):
        raise NotProvided(f"the class loss is always {class_losses(subject)[0]}")
    if every_set and subject.variant("loss_sets") != "all":
        raise NotProvided("there are no losses of the encoder or of denoising")


# -- a batch --------------------------------------------------------------------------------------------------


def planted(subject: Subject, note: str, sizes: Sizes = DECODER, **settings: Any) -> Case:
    """A batch with a clear assignment in every layer and in the encoder; the target's first class loss unless given."""
    chosen = {"class_loss": class_losses(subject)[0], **fixed_giou_eps(subject), **settings}
    chosen |= {} if sizes.contrastive else {"contrastive": False}

    def draw(attempt: int) -> Case:
        fill = Filler(subject.dtype, subject.settings.seed, "losses", note, sizes, attempt)
        return block_case(subject, _batch(fill, sizes, chosen), settings=chosen, note=note)

    return _drawn_until(lambda case: clearest(case) > CLEAR, draw, subject, note, sizes, tuple(chosen.items()))


def _drawn_until(good: Callable[[Case], bool], draw: Callable[[int], Case], subject: Subject, *key: Any) -> Case:
    """The first good one of many draws, remembered for the next test that asks for it."""
    key = (subject.dtype, subject.settings.seed, *key)
    if key not in _found:
        for attempt in range(ATTEMPTS):
            case = draw(attempt)
            if good(case):
                _found[key] = case
                break
        else:
            raise SuiteError(f"none of {ATTEMPTS} draws is good: {key}")
    return _found[key]


def _batch(fill: Filler, sizes: Sizes, settings: dict[str, Any]) -> dict[str, Tensor]:
    channels = CLASSES + (settings["class_loss"] == "cross_entropy")
    counts, number = sizes.counts, sum(sizes.counts)
    labels = labels_of(fill, number, CLASSES)
    targets = torch.cat([_spread_out(fill, count) for count in counts])
    layers = [
        _predictions(fill, labels, targets, sizes, layer, sizes.queries, channels) for layer in range(sizes.layers)
    ]
    tensors = {
        "pred_logits": torch.stack([logits for logits, _ in layers]),
        "pred_boxes": torch.stack([boxes for _, boxes in layers]),
        "target_labels": labels,
        "target_boxes": targets,
        "target_counts": torch.tensor(counts, dtype=torch.int64),
    }
    if sizes.tokens:
        asked = torch.zeros_like(labels) if settings.get("encoder_targets") == "objectness" else labels
        encoder = _predictions(fill, asked, targets, sizes, sizes.layers, sizes.tokens, channels)
        tensors |= dict(zip(("enc_logits", "enc_boxes"), encoder, strict=True))
    if sizes.groups:
        tensors["dn_logits"] = fill.normal(sizes.layers, len(counts), sizes.slots, channels)
        tensors["dn_boxes"] = _denoising_boxes(fill, targets, sizes)
    return tensors


def _spread_out(fill: Filler, count: int) -> Tensor:
    """Boxes of an image in cells of their own."""
    cells = CELLS[torch.randperm(len(CELLS), generator=fill.generator)[:count]]
    sizes = torch.tensor((0.2, 0.12), dtype=torch.float64) + 0.08 * fill.uniform(0.0, 1.0, count, 2)
    return torch.cat((cells + fill.uniform(-0.04, 0.04, count, 2), sizes), -1)


def _predictions(
    fill: Filler, labels: Tensor, targets: Tensor, sizes: Sizes, layer: int, queries: int, channels: int
) -> tuple[Tensor, Tensor]:
    """Logits and boxes of one layer. Where there are more boxes than queries, the first ones get none."""
    batch, start = len(sizes.counts), 0
    logits, boxes = fill.normal(batch, queries, channels), boxes_of(fill, batch, queries)
    for image, count in enumerate(sizes.counts):
        for box in range(max(0, count - queries), count):
            query = query_of(box, layer, queries)
            logits[image, query, labels[start + box]] += 2.5
            boxes[image, query] = _beside(fill, targets[start + box])
        start += count
    return logits, boxes


def query_of(box: int, layer: int, queries: int) -> int:
    """The query that is planted for a box: neither in the order of the boxes, nor the same in two layers."""
    return (layer - box) % queries


def _beside(fill: Filler, box: Tensor) -> Tensor:
    """A box of which centre, size and corners all differ a little; where they are equal, losses have kinks."""
    signs = 1 - 2 * fill.integers(0, 1, 4)
    near, far = fill.uniform(0.012, 0.02, 2), fill.uniform(0.035, 0.05, 2)
    low, high = box[:2] - box[2:] / 2 + signs[:2] * near, box[:2] + box[2:] / 2 + signs[2:] * far
    return torch.cat(((low + high) / 2, high - low))


def _denoising_boxes(fill: Filler, targets: Tensor, sizes: Sizes) -> Tensor:
    """Positives beside their boxes, everything else anywhere."""
    boxes = boxes_of(fill, sizes.layers, len(sizes.counts), sizes.slots)
    most, size = max(sizes.counts), sizes.slots // sizes.groups
    for layer, group in itertools.product(range(sizes.layers), range(sizes.groups)):
        start = 0
        for image, count in enumerate(sizes.counts):
            for box in range(count):
                boxes[layer, image, group * size + box % most] = _beside(fill, targets[start + box])
            start += count
    return boxes


# -- how clear it is ------------------------------------------------------------------------------------------


def matched_sets(case: Case) -> dict[str, Case]:
    """The matching within each layer, and within the encoder, as a case of `hungarian_matching`; by suffix."""
    settings = settings_of(case)
    usual = {"alpha": 0.25, "gamma": 2.0, "cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0, "giou_eps": 0.0}
    options = {name: str(settings.get(name, value)) for name, value in usual.items()}
    options["class_cost"] = f'"{CLASS_COST_OF[settings["class_loss"]]}"'
    last = len(case["pred_logits"]) - 1
    found = {}
    for layer, (logits, boxes) in enumerate(zip(case["pred_logits"], case["pred_boxes"], strict=True)):
        suffix = "" if layer == last else f"_{layer}"
        found[suffix] = case.having(pred_logits=logits, pred_boxes=boxes)
    if "enc_logits" in case.tensors:
        objects = settings.get("encoder_targets") == "objectness"
        labels = torch.zeros_like(case["target_labels"]) if objects else case["target_labels"]
        found["_enc"] = case.having(pred_logits=case["enc_logits"], pred_boxes=case["enc_boxes"], target_labels=labels)
    return {suffix: replace(each, options=options) for suffix, each in found.items()}


def clearest(case: Case) -> float:
    """The least margin of all assignments."""
    return min((margin(cost) for each in matched_sets(case).values() for cost in costs(each)), default=math.inf)


# -- families -------------------------------------------------------------------------------------------------


def of_each_class_loss(subject: Subject, note: str, sizes: Sizes = DECODER, **settings: Any) -> Iterator[Case]:
    for class_loss in class_losses(subject):
        yield planted(subject, f"{note}, {class_loss}", sizes, class_loss=class_loss, **settings)


def representative_detection_losses(subject: Subject) -> list[Case]:
    """All sets of predictions, where the target has them all."""
    if subject.variant("loss_sets") == "decoder":
        return [*of_each_class_loss(subject, "decoder layers"), planted(subject, "one layer", ONE_LAYER)]
    return [*of_each_class_loss(subject, "all sets", ALL), planted(subject, "one layer", ONE_LAYER)]


def one_layer(subject: Subject, class_loss: str, turns: int = 2, **settings: Any) -> Iterator[Case]:
    """The last layer alone, with one class loss."""
    need(subject, class_loss=class_loss)
    for turn in range(turns):
        sizes = replace(ONE_LAYER, counts=((2, 0, 3), (1, 4))[turn % 2])
        yield planted(subject, f"{class_loss} {turn}", sizes, class_loss=class_loss, **settings)


def box_losses(subject: Subject) -> Iterator[Case]:
    yield planted(subject, "boxes", ONE_LAYER)
    yield planted(subject, "more boxes", replace(ONE_LAYER, counts=(4, 1))).laid_out("transposed")


def decoder_layers(subject: Subject) -> Iterator[Case]:
    yield planted(subject, "three layers")
    yield planted(subject, "four layers", replace(DECODER, layers=4, counts=(3, 1))).laid_out("sliced")


def without_a_plan(subject: Subject) -> Iterator[Case]:
    """Random predictions, of which the matching is clear, but would be another with one cost left out or exchanged."""
    for class_loss in class_losses(subject):
        for change in (*UNIT_COSTS, "class_cost"):
            yield _dependent_on(subject, class_loss, change)


def _dependent_on(subject: Subject, class_loss: str, change: str) -> Case:
    weights = {"cost_class": 1.5, "cost_bbox": 4.0, "cost_giou": 3.0}
    settings = {"class_loss": class_loss, **weights, **fixed_giou_eps(subject)}
    channels, boxes = CLASSES + (class_loss == "cross_entropy"), 4
    note = f"no plan, {class_loss}, {change} matters"

    def draw(attempt: int) -> Case:
        fill = Filler(subject.dtype, subject.settings.seed, "losses", note, attempt)
        tensors = {
            "pred_logits": 2 * fill.normal(1, 1, 6, channels),
            "pred_boxes": boxes_of(fill, 1, 1, 6),
            "target_labels": labels_of(fill, boxes, CLASSES),
            "target_boxes": boxes_of(fill, boxes),
            "target_counts": torch.tensor([boxes]),
        }
        return block_case(subject, tensors, settings=settings, note=note)

    def good(case: Case) -> bool:
        whole = matched_sets(case)[""]
        other = "softmax" if class_loss == "focal" else "focal"
        changed = {change: f'"{other}"' if change == "class_cost" else "0.0"}
        return clearest(case) > CLEAR and _assignment(whole) != _assignment(
            replace(whole, options=whole.options | changed)
        )

    return _drawn_until(good, draw, subject, note)


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
    yield from of_each_class_loss(subject, "more boxes than queries", Sizes(counts=(4, 1), layers=2, queries=3))


def empty_images(subject: Subject) -> Iterator[Case]:
    every = WITH_ENCODER if subject.variant("loss_sets") == "all" else DECODER
    yield from of_each_class_loss(subject, "empty images", replace(every, counts=(0, 2, 0)))


def empty_batches(subject: Subject) -> Iterator[Case]:
    every = WITH_ENCODER if subject.variant("loss_sets") == "all" else DECODER
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
