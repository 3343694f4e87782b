"""The published losses of a step under an assignment that is given, so that no tie decides what is compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detr_conformance.topics.training.cases import OBJECTIVES, Batch
from detr_reference.denoising.denoising_pairs import denoising_pairs
from detr_reference.losses.criterion import Criterion
from detr_reference.losses.loss_normaliser import mean_boxes

Pairs = dict[str, dict[str, Tensor]]  # of each set of predictions that is matched, by the suffix of its losses


def assignments(model: str, outputs: Mapping[str, Tensor], batch: Batch) -> Pairs:
    """Which query answers for which box, in every set of predictions that is matched."""
    criterion = OBJECTIVES[model].criterion
    return {
        suffix: criterion.assignment(logits.detach(), boxes.detach(), batch.targets)
        for suffix, (logits, boxes) in _matched_sets(outputs).items()
    }


def losses_of(model: str, outputs: Mapping[str, Tensor], batch: Batch, pairs: Pairs) -> dict[str, Tensor]:
    """The published losses of these predictions under this assignment, in the predictions' dtype."""
    criterion: Criterion = OBJECTIVES[model].criterion
    targets = batch.targets
    num_boxes = mean_boxes(targets.counts, torch.float64)
    losses: dict[str, Tensor] = {}
    for suffix, (logits, boxes) in _matched_sets(outputs).items():
        of = targets
        if suffix == "_enc" and model == "deformable_detr":
            of = targets._replace(labels=torch.zeros_like(targets.labels))
        losses |= _named(suffix, criterion.of_pairs(logits, boxes, of, pairs[suffix], num_boxes))
    if "dn_logits" in outputs:
        known = denoising_pairs(targets.counts, outputs["dn_logits"].shape[2])
        repeated = num_boxes * max(known.groups, 1)
        for layer, (logits, boxes) in enumerate(zip(outputs["dn_logits"], outputs["dn_boxes"], strict=True)):
            own = criterion.of_pairs(logits, boxes, targets, known.pairs, repeated)
            losses |= _named(f"_dn_{layer}", own)
    return losses


def total_of(model: str, losses: Mapping[str, Tensor]) -> Tensor:
    """The weighted sum that is differentiated."""
    weights = OBJECTIVES[model].weights
    return torch.stack([weights["_".join(name.split("_")[:2])] * loss for name, loss in losses.items()]).sum()


def _matched_sets(outputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    layers = zip(outputs["pred_logits"], outputs["pred_boxes"], strict=True)
    found = {f"_{layer}": each for layer, each in enumerate(layers)}
    if "enc_logits" in outputs:
        found["_enc"] = (outputs["enc_logits"], outputs["enc_boxes"])
    return found


def _named(suffix: str, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name + suffix: loss for name, loss in losses.items()}
