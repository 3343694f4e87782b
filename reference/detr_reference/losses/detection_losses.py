"""The losses of DETR, Deformable DETR and DINO: of every decoder layer, of the encoder, of denoising.

Source: DETR, arXiv:2005.12872, section 3.1; Deformable DETR, arXiv:2010.04159, appendix A.4; DINO, arXiv:2203.03605,
section 3.3; read with facebookresearch/detr, models/detr.py, fundamentalvision/Deformable-DETR,
models/deformable_detr.py, and IDEA-Research/DINO, models/dino/dino.py. Clauses: spec chapter 15.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.denoising.denoising_pairs import denoising_pairs
from detr_reference.losses.batch_targets import BatchTargets, batch_targets
from detr_reference.losses.criterion import Criterion, Losses
from detr_reference.losses.loss_normaliser import mean_boxes

ENCODER_TARGETS = ("classes", "objectness")
PADDED_SLOTS = ("background", "ignored")

DINO_WEIGHTS = {"loss_class": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}


def detection_losses(
    pred_logits: Float[Tensor, "layer batch query class"],
    pred_boxes: Float[Tensor, "layer batch query 4"],
    target_labels: Int[Tensor, " box"],
    target_boxes: Float[Tensor, "box 4"],
    target_counts: Int[Tensor, " batch"],
    enc_logits: Float[Tensor, "batch token class"] | None = None,
    enc_boxes: Float[Tensor, "batch token 4"] | None = None,
    dn_logits: Float[Tensor, "layer batch slot class"] | None = None,
    dn_boxes: Float[Tensor, "layer batch slot 4"] | None = None,
    *,
    class_loss: str = "focal",
    alpha: float = 0.25,
    gamma: float = 2.0,
    no_object_weight: float = 0.1,
    cost_class: float = 2.0,
    cost_bbox: float = 5.0,
    cost_giou: float = 2.0,
    giou_eps: float = 0.0,
    encoder_targets: str = "classes",
    contrastive: bool = True,
    padded_slots: str = "background",
) -> Losses:
    """class, L1 and GIoU loss of each set of predictions, against the targets it is matched with, unweighted

    Args:
        pred_logits, pred_boxes: of the matching queries in all decoder layers, the last layer last; boxes are cxcywh.
        target_labels, target_boxes, target_counts: see `BatchTargets`.
        enc_logits, enc_boxes: of the encoder's proposals, the selected ones or all.
        dn_logits, dn_boxes: of the denoising queries, laid out as in `denoising_pairs`.
        class_loss, alpha, gamma, no_object_weight, cost_class, cost_bbox, cost_giou, giou_eps: see `Criterion`.
        encoder_targets: "classes" (DINO), or "objectness" (two-stage Deformable DETR): every box is of class 0.
        contrastive: whether each denoising group has negatives (DINO) or not (DN-DETR).
        padded_slots: denoising slots without a box are "background" (DINO), or "ignored" by the class loss (DN-DETR).

    Returns:
        loss_class, loss_bbox and loss_giou, scalars, of the last layer; the same with the suffixes _0, _1, ... of the
        earlier layers, _enc of the encoder, _dn, _dn_0, _dn_1, ... of denoising. What is not given has no loss.

    Raises:
        ValueError: shapes, counts, labels or settings are wrong, or a prediction to be matched is not finite.
        TypeError: labels or counts are not int64.
    """
    criterion = Criterion(
        class_loss=class_loss,
        alpha=alpha,
        gamma=gamma,
        no_object_weight=no_object_weight,
        cost_class=cost_class,
        cost_bbox=cost_bbox,
        cost_giou=cost_giou,
        giou_eps=giou_eps,
    )
    _check_choice("encoder_targets", encoder_targets, ENCODER_TARGETS)
    _check_choice("padded_slots", padded_slots, PADDED_SLOTS)
    _check_outputs("pred", pred_logits, pred_boxes, "layer, batch, query")
    _check_outputs("enc", enc_logits, enc_boxes, "batch, token")
    _check_outputs("dn", dn_logits, dn_boxes, "layer, batch, slot")
    _, batch, _, channels = pred_logits.shape
    targets = batch_targets(
        target_labels, target_boxes, target_counts, batch=batch, num_classes=criterion.num_classes(channels)
    )
    num_boxes = mean_boxes(target_counts, torch.promote_types(pred_logits.dtype, torch.float32))

    losses: Losses = {}
    for suffix, layer in _layers("", len(pred_logits)):
        losses |= _matched(suffix, criterion, pred_logits[layer], pred_boxes[layer], targets, num_boxes)
    if enc_logits is not None and enc_boxes is not None:
        asked = targets
        if encoder_targets == "objectness":
            asked = targets._replace(labels=torch.zeros_like(targets.labels))
        losses |= _matched("_enc", criterion, enc_logits, enc_boxes, asked, num_boxes)
    if dn_logits is not None and dn_boxes is not None:
        known = denoising_pairs(target_counts, dn_logits.shape[2], contrastive=contrastive)
        repeated = num_boxes * max(known.groups, 1)
        slots = known.holds_box if padded_slots == "ignored" else None
        for suffix, layer in _layers("_dn", len(dn_logits)):
            own = criterion.of_pairs(dn_logits[layer], dn_boxes[layer], targets, known.pairs, repeated, slots)
            losses |= _named(suffix, own)
    return losses


def weighted_total(losses: Mapping[str, Tensor], weights: Mapping[str, float] = DINO_WEIGHTS) -> Float[Tensor, ""]:
    """sum of weight * loss; decoder layers, encoder and denoising have equal weights

    Args:
        losses: as from `detection_losses`.
        weights: of "loss_class", "loss_bbox" and "loss_giou": 1, 5, 2 in DETR and DINO, 2, 5, 2 in Deformable DETR.

    Raises:
        KeyError: a loss has no weight.
    """
    kinds = {name: "_".join(name.split("_")[:2]) for name in losses}
    return torch.stack([weights[kinds[name]] * loss for name, loss in losses.items()]).sum()


def _matched(
    suffix: str, criterion: Criterion, logits: Tensor, boxes: Tensor, targets: BatchTargets, num_boxes: Tensor
) -> Losses:
    try:
        return _named(suffix, criterion.matched(logits, boxes, targets, num_boxes))
    except ValueError as error:
        raise ValueError(f"no loss_class{suffix}: {error}") from error


def _named(suffix: str, losses: Losses) -> Losses:
    return {name + suffix: loss for name, loss in losses.items()}


def _layers(prefix: str, number: int) -> list[tuple[str, int]]:
    """Suffix and index of each layer: the last one without a number, then the earlier ones."""
    return [(prefix, number - 1), *((f"{prefix}_{layer}", layer) for layer in range(number - 1))]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def _check_outputs(name: str, logits: Tensor | None, boxes: Tensor | None, axes: str) -> None:
    if logits is None and boxes is None:
        return
    if logits is None or boxes is None:
        raise ValueError(f"{name}_logits and {name}_boxes must be given together")
    if logits.ndim != axes.count(",") + 2 or boxes.shape != (*logits.shape[:-1], 4) or not len(logits):
        raise ValueError(
            f"{name}_logits must be ({axes}, class) and {name}_boxes ({axes}, 4), not empty, "
            f"got {tuple(logits.shape)} and {tuple(boxes.shape)}"
        )
