"""Batches of predictions for the detection losses, of which the assignment is clear.

Each box has a query that was planted for it: near it, and sure of its class. Which query that is differs from layer to
layer. Batches are drawn until the assignment is clear in every layer, so that no rounding can change it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block_case import block_case, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import SuiteError
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.topics.losses.cases.matching import boxes_of, fixed_giou_eps
from detr_conformance.topics.losses.checks.matching import costs, margin
from detr_reference.losses.criterion import CLASS_COST_OF

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
WITH_ENCODER = Sizes(layers=1, tokens=6)
WITH_DENOISING = Sizes(layers=1, groups=3)
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

    return drawn_until(lambda case: clearest(case) > CLEAR, draw, subject, note, sizes, tuple(chosen.items()))


def drawn_until(good: Callable[[Case], bool], draw: Callable[[int], Case], subject: Subject, *key: Any) -> Case:
    """The first good one of many draws, remembered for the next test that asks for it."""
    key = (subject.dtype, subject.settings.seed, repr(sorted(subject.variants.items())), *key)
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
    counts = sizes.counts
    labels = torch.cat([torch.randperm(CLASSES, generator=fill.generator)[:count] for count in counts])
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
